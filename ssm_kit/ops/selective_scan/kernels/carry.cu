// What a segment makes of nothing: the state at its end, or, with REVERSE, the gradient that it passes on to the state
// before it. With its total of step sizes that is all other segments need to know of it.
struct Tile {
    Steps steps;  // (dt, dt x); REVERSE: (dt, gradient of y before skip and gate)
    float in[STEPS][N];
};

struct Columns { Column delta, z, value, in; };

__device__ __forceinline__ void stage(const Columns& from, const Mine& mine, i64 step, i64 left, const float (&bias)[8],
                                      const Problem& p, Tile& tile) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int row = mine.row + i * AT_ONCE, count = row < left ? mine.count : 0;
        if (AT_ONCE > STEPS && row >= STEPS) break;
        const i64 t = step + i * AT_ONCE;
        Piece delta, value, z;
        if (p.aligned && count >= 8) {
            delta = from.delta.whole(t), value = from.value.whole(t);
            if (GATE && REVERSE) z = from.z.whole(t);
        } else {
            delta = from.delta.some(t, count, NO_STEP), value = from.value.some(t, count);
            if (GATE && REVERSE) z = from.z.some(t, count);
        }
        float pairs[16];
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            pairs[2 * j] = step_size(get(delta, j) + bias[j]).value;
            pairs[2 * j + 1] = get(value, j) * (REVERSE ? 1.f : pairs[2 * j]);
            if (GATE && REVERSE) pairs[2 * j + 1] *= get(z, j) * sigmoid(get(z, j));
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) tile.steps.pair[row][swizzle(mine.channel / 2 + j)] = *(float4*)(pairs + 4 * j);
    }
#pragma unroll
    for (int i = 0; i < INPUTS; ++i) {
        const int row = mine.input_row + i * INPUTS_AT_ONCE;
        if (row < STEPS) tile.in[row][mine.state] = row < left && mine.state < p.states
            ? to_float(from.in.from[(step + i * INPUTS_AT_ONCE) * from.in.row]) : 0.f;
    }
}

__device__ __forceinline__ void scan_tile(const Tile& tile, const float (&a)[K][NS], float (&state)[K][NS], float (&sum)[K]) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K;
#pragma unroll UNROLL
    for (int i = 0; i < STEPS; ++i) {
        const int t = REVERSE ? STEPS - 1 - i : i;
        float dt[K], u[K], in[NS];
        tile.steps.read(t, channel, dt, u);
        read_states(&tile.in[t][lane * NS], in);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            sum[k] += dt[k];
#pragma unroll
            for (int n = 0; n < NS; ++n) {
                const float decay = ex2(dt[k] * a[k][n]);
                state[k][n] = REVERSE ? decay * fmaf(u[k], in[n], state[k][n]) : fmaf(decay, state[k][n], u[k] * in[n]);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) carry(PROBLEM, const T* dout, float* ends, float* sums) {
    const Problem p = THE_PROBLEM;
    __shared__ Tile tile;
    const Place at = find_place(p);
    const Segment s = find_segment(at.slot, p.length, p.segment, p.bounds, p.rows);
    if (s.begin >= s.end || s.index == (REVERSE ? 0 : s.count - 1)) return;  // nobody comes after
    float a[K][NS] = {}, state[K][NS] = {}, sum[K] = {}, skip[8], bias[8];
    each_state(p, at, [&](int k, int n, i64 offset) { a[k][n] = p.A[offset] * LOG2E; });
    const Mine mine(at);
    load_weights(p, at, mine, skip, bias);
    const i64 channel = at.channel + mine.channel, first = s.begin + mine.row;
    const T* value = REVERSE ? dout : p.x;
    const Columns from = {{p.delta, p.delta_row, first, channel}, {p.z, p.z_row, first, channel},
                          {value, REVERSE ? p.channels : p.x_row, first, channel},
                          {REVERSE ? p.C : p.B, REVERSE ? p.C_row : p.B_row, s.begin + mine.input_row, at.group * p.states + mine.state}};
    const i64 tiles = (s.end - s.begin + STEPS - 1) / STEPS;
    for (i64 i = 0; i < tiles; ++i) {
        const i64 step = (REVERSE ? tiles - 1 - i : i) * STEPS;
        stage(from, mine, step, s.end - s.begin - step, bias, p, tile);
        __syncthreads();
        scan_tile(tile, a, state, sum);
        __syncthreads();
    }
    each_state(p, at, [&](int k, int n, i64 offset) {
        ends[at.slot * p.channels * p.states + offset] = state[k][n];
        if (n == 0) sums[at.slot * p.channels + offset / p.states] = sum[k];  // every lane has it
    });
}
