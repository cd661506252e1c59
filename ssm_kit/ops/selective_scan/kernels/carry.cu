// What a segment makes of nothing: the state at its end, or, with REVERSE, the gradient that it passes on to the state
// before it. With its total of step sizes that is all other segments need to know of it.
struct Tile {
    Steps steps;  // (dt, dt x); REVERSE: (dt, gradient of y before skip and gate)
    float in[STEPS][N];
};

struct Inputs { Piece delta[PER_THREAD], value[PER_THREAD], z[PER_THREAD]; T in[INPUTS]; };

INLINE void fetch(const Problem& p, const Mine& mine, u32 step, u32 end, const T* dout, Inputs& in) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const u32 t = step + mine.row + i * AT_ONCE;
        const int count = t < end ? mine.count : 0;
        const T *delta = at_step(p.delta, p.delta_row, t, mine.channel), *z = at_step(p.z, p.z_row, t, mine.channel);
        const T* value = REVERSE ? at_step(dout, p.channels, t, mine.channel) : at_step(p.x, p.x_row, t, mine.channel);
        if (p.aligned && count >= 8) {
            in.delta[i] = *(const Piece*)delta, in.value[i] = *(const Piece*)value;
            if (GATE && REVERSE) in.z[i] = *(const Piece*)z;
        } else {
            in.delta[i] = load_some(delta, count, NO_STEP), in.value[i] = load_some(value, count, 0.f);
            if (GATE && REVERSE) in.z[i] = load_some(z, count, 0.f);
        }
    }
#pragma unroll
    for (int i = 0; i < INPUTS; ++i) {
        const u32 t = step + mine.input_row + i * INPUTS_AT_ONCE;
        in.in[i] = T();
        if (t < end && mine.state < p.states)
            in.in[i] = REVERSE ? *at_step(p.C, p.C_row, t, mine.input) : *at_step(p.B, p.B_row, t, mine.input);
    }
}

INLINE void stage(const Inputs& in, const Mine& mine, const float (&bias)[8], Tile& tile) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int row = mine.row + i * AT_ONCE;
        if (AT_ONCE > STEPS && row >= STEPS) break;
        float pairs[16], gate[8];
        if (GATE && REVERSE) silu(in.z[i], gate);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            pairs[2 * j] = step_size(get(in.delta[i], j) + bias[j]).value;
            pairs[2 * j + 1] = get(in.value[i], j) * (REVERSE ? 1.f : pairs[2 * j]);
            if (GATE && REVERSE) pairs[2 * j + 1] *= gate[j];
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) tile.steps.pair[row][swizzle(mine.inside / 2 + j)] = *(float4*)(pairs + 4 * j);
    }
#pragma unroll
    for (int i = 0; i < INPUTS; ++i) {
        const int row = mine.input_row + i * INPUTS_AT_ONCE;
        if (row < STEPS) tile.in[row][mine.state] = to_float(in.in[i]);
    }
}

constexpr int MULTIPLIED = NS / 8;  // of a thread's exponentials: so many that both units are done at the same time

INLINE void scan_tile(const Tile& tile, const float (&a)[K][NS], float (&state)[K][NS], float (&sum)[K]) {
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
                const float x = dt[k] * a[k][n], decay = n < MULTIPLIED ? ex2_multiplied(x) : ex2(x);
                state[k][n] = REVERSE ? decay * fmaf(u[k], in[n], state[k][n]) : fmaf(decay, state[k][n], u[k] * in[n]);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) carry(
    PROBLEM, const T* dout, float* ends, float* sums) {
    const Problem p = THE_PROBLEM;
    __shared__ Tile tile;
    const Place at = find_place(p);
    const Segment s = find_segment(p, at.slot);
    if (s.begin >= s.end || (!LAST && s.index == (REVERSE ? 0 : s.count - 1))) return;  // nobody comes after
    float a[K][NS] = {}, state[K][NS] = {}, sum[K] = {}, bias[8];
    each_state(p, at, [&](int k, int n, u32 offset) { a[k][n] = p.A[offset] * LOG2E; });
    const Mine mine(p, at);
    load_weights(p.bias, mine, bias);
    const u32 tiles = (s.end - s.begin + STEPS - 1) / STEPS;
    Inputs in;
    fetch(p, mine, s.begin + (REVERSE ? tiles - 1 : 0) * STEPS, s.end, dout, in);
    for (u32 i = 1; i <= tiles; ++i) {
        stage(in, mine, bias, tile);
        __syncthreads();
        if (i < tiles) fetch(p, mine, s.begin + (REVERSE ? tiles - 1 - i : i) * STEPS, s.end, dout, in);
        scan_tile(tile, a, state, sum);
        __syncthreads();
    }
    each_state(p, at, [&](int k, int n, u32 offset) {
        ends[(u64)at.slot * p.channels * p.states + offset] = state[k][n];
        if (n == 0) sums[(u64)at.slot * p.channels + offset / p.states] = sum[k];  // every lane has it
    });
}
