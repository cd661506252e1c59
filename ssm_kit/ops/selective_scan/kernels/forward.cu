// One pass over a sequence: states stay in registers, the tiles' inputs go through shared memory.
//
// A block owns CHANNELS channels of one segment and walks through it in tiles of STEPS steps. For each tile all threads
// first compute dt = softplus(delta + bias) and dt x, elementwise and coalesced; then each thread scans its K channels,
// NS states of each; then all threads skip, gate and write, elementwise again. The next tile is on its way meanwhile.
struct Tile {
    Steps steps;
    float B[STEPS][N], C[STEPS][N];
    float y[STEPS][CHANNELS + (LANES > 1 ? 32 / LANES : 0)];
};

struct Inputs { Piece x[PER_THREAD], delta[PER_THREAD], z[PER_THREAD]; T B[INPUTS], C[INPUTS]; };

// Where a thread reads the next tile.
struct Columns { Column x, delta, z, B, C; };

// Read a tile of which `left` steps exist.
__device__ __forceinline__ void fetch(const Columns& from, const Mine& mine, int left, const Problem& p, Inputs& in) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int step = i * AT_ONCE, count = mine.row + step < left ? mine.count : 0;
        if (p.aligned && count >= 8) {
            in.x[i] = from.x.whole(step), in.delta[i] = from.delta.whole(step);
            if (GATE) in.z[i] = from.z.whole(step);
        } else {
            in.x[i] = from.x.some(step, count), in.delta[i] = from.delta.some(step, count, NO_STEP);
            if (GATE) in.z[i] = from.z.some(step, count);
        }
    }
#pragma unroll
    for (int i = 0; i < INPUTS; ++i) {
        const int step = i * INPUTS_AT_ONCE;
        in.B[i] = in.C[i] = T();
        if (mine.input_row + step < left && mine.state < p.states) {
            in.B[i] = from.B.from[step * from.B.row];
            in.C[i] = from.C.from[step * from.C.row];
        }
    }
}

__device__ __forceinline__ void stage(const Inputs& in, const Mine& mine, const float (&bias)[8], Tile& tile) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int row = mine.row + i * AT_ONCE;
        if (AT_ONCE > STEPS && row >= STEPS) break;
        float pairs[16];
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            pairs[2 * j] = step_size(get(in.delta[i], j) + bias[j]).value;
            pairs[2 * j + 1] = pairs[2 * j] * get(in.x[i], j);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) tile.steps.pair[row][swizzle(mine.channel / 2 + j)] = *(float4*)(pairs + 4 * j);
    }
#pragma unroll
    for (int i = 0; i < INPUTS; ++i) {
        const int row = mine.input_row + i * INPUTS_AT_ONCE;
        if (INPUTS_AT_ONCE > STEPS && row >= STEPS) break;
        tile.B[row][mine.state] = to_float(in.B[i]), tile.C[row][mine.state] = to_float(in.C[i]);
    }
}

__device__ __forceinline__ void scan_tile(Tile& tile, const float (&a)[K][NS], float (&h)[K][NS]) {
    constexpr int TOGETHER = LANES > K ? LANES / K : 1;  // steps whose sums over lanes are taken at once
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K;
#pragma unroll UNROLL
    for (int t = 0; t < STEPS; t += TOGETHER) {
        float y[TOGETHER * K];
#pragma unroll
        for (int s = 0; s < TOGETHER; ++s) {
            float dt[K], u[K], b[NS], c[NS];
            tile.steps.read(t + s, channel, dt, u);
            read_states(&tile.B[t + s][lane * NS], b);
            read_states(&tile.C[t + s][lane * NS], c);
#pragma unroll
            for (int k = 0; k < K; ++k) {
                float sum[2] = {0.f, 0.f};
#pragma unroll
                for (int n = 0; n < NS; ++n) {
                    h[k][n] = fmaf(ex2(dt[k] * a[k][n]), h[k][n], u[k] * b[n]);
                    sum[n % 2] = fmaf(h[k][n], c[n], sum[n % 2]);
                }
                y[s * K + k] = sum[0] + sum[1];
            }
        }
        reduce<TOGETHER * K, LANES, 1>(y, lane);
        constexpr int KEPT = TOGETHER * K / LANES;
#pragma unroll
        for (int i = 0; i < KEPT; ++i) tile.y[t + (lane * KEPT + i) / K][channel + (lane * KEPT + i) % K] = y[i];
    }
}

__device__ __forceinline__ void write(const Inputs& in, const Mine& mine, const float (&skip)[8], const Tile& tile,
                                      int left, const Problem& p, T* to) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int step = i * AT_ONCE;
        if (mine.row + step >= min(left, STEPS)) break;
        Piece out;
        float y[8];
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            y[j] = fmaf(skip[j], get(in.x[i], j), tile.y[mine.row + step][mine.channel + j]);
            if (GATE) y[j] *= get(in.z[i], j) * sigmoid(get(in.z[i], j));
        }
#pragma unroll
        for (int j = 0; j < 8; j += 2) put(out, j, y[j], y[j + 1]);
        store(to + step * p.channels, out, mine.count, p.aligned);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) forward(
    PROBLEM, const float* initial, const float* ends, const float* sums, T* y, float* final, Saved* saved) {
    const Problem p = THE_PROBLEM;
    __shared__ Tile tile;
    const Place at = find_place(p);
    const Segment s = find_segment(at.slot, p.length, p.segment, p.bounds, p.rows);
    if (s.begin >= s.end) return;
    float a[K][NS] = {}, h[K][NS] = {}, skip[8], bias[8];
    each_state(p, at, [&](int k, int n, i64 offset) {
        a[k][n] = p.A[offset] * LOG2E;
        if (initial) h[k][n] = initial[s.row * p.channels * p.states + offset];
    });
    carry_over(p, at, a, ends, sums, at.slot - 1, s.index, -1, h);
    const Mine mine(at);
    load_weights(p, at, mine, skip, bias);
    const i64 channel = at.channel + mine.channel, state = at.group * p.states + mine.state, step = s.begin + mine.row;
    Columns from = {{p.x, p.x_row, step, channel}, {p.delta, p.delta_row, step, channel}, {p.z, p.z_row, step, channel},
                    {p.B, p.B_row, s.begin + mine.input_row, state}, {p.C, p.C_row, s.begin + mine.input_row, state}};
    y += step * p.channels + channel;
    Inputs next, now;
    i64 left = s.end - s.begin, span = s.saved;
    fetch(from, mine, (int)min(left, (i64)STEPS), p, next);
    for (; left > 0; left -= STEPS) {
        if (saved && (s.end - s.begin - left) % SPAN == 0) save_states(p, at, span++, h, saved);
        now = next;
        stage(now, mine, bias, tile);
        __syncthreads();
        from.x.advance(), from.delta.advance(), from.z.advance(), from.B.advance(), from.C.advance();
        fetch(from, mine, (int)min(left - STEPS, (i64)STEPS), p, next);
        scan_tile(tile, a, h);
        __syncthreads();
        write(now, mine, skip, tile, (int)min(left, (i64)STEPS), p, y);
        y += STEPS * p.channels;
    }
    if (s.index == s.count - 1)
        each_state(p, at, [&](int k, int n, i64 offset) { final[s.row * p.channels * p.states + offset] = h[k][n]; });
}
