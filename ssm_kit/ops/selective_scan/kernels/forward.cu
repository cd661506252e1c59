// One pass over a sequence: states stay in registers, the tiles' inputs go through shared memory.
//
// A block owns CHANNELS channels of one segment and walks through it in tiles of STEPS steps. For each tile all threads
// first compute dt = softplus(delta + bias) and dt x, elementwise and coalesced; then each thread scans its K channels,
// NS states of each; then all threads skip, gate and write, elementwise again. The next tile is on its way meanwhile.
struct Tile {
    Steps steps;
    float B[STEPS][N], C[STEPS][N];
    float y[STEPS][CHANNELS + (LANES > 1 ? 32 / LANES : 0)];
    Weights weights;  // registers are scarcer
};

struct Inputs { Piece x[PER_THREAD], delta[PER_THREAD], z[PER_THREAD]; T B[INPUTS], C[INPUTS]; };

// Read the tile that begins at `step`.
INLINE void fetch(const Problem& p, const Mine& mine, u32 step, u32 end, Inputs& in) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const u32 t = step + mine.row + i * AT_ONCE;
        const int count = t < end ? mine.count : 0;
        const T *x = at_step(p.x, p.x_row, t, mine.channel), *delta = at_step(p.delta, p.delta_row, t, mine.channel);
        const T* z = at_step(p.z, p.z_row, t, mine.channel);
        if (p.aligned && count >= 8) {
            in.x[i] = *(const Piece*)x, in.delta[i] = *(const Piece*)delta;
            if (GATE) in.z[i] = *(const Piece*)z;
        } else {
            in.x[i] = load_some(x, count, 0.f), in.delta[i] = load_some(delta, count, NO_STEP);
            if (GATE) in.z[i] = load_some(z, count, 0.f);
        }
    }
#pragma unroll
    for (int i = 0; i < INPUTS; ++i) {
        const u32 t = step + mine.input_row + i * INPUTS_AT_ONCE;
        in.B[i] = in.C[i] = T();
        if (t < end && mine.state < p.states) {
            in.B[i] = *at_step(p.B, p.B_row, t, mine.input);
            in.C[i] = *at_step(p.C, p.C_row, t, mine.input);
        }
    }
}

INLINE void stage(const Inputs& in, const Mine& mine, Tile& tile) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int row = mine.row + i * AT_ONCE;
        if (AT_ONCE > STEPS && row >= STEPS) break;
        float pairs[16], bias[8];
        read8(&tile.weights.bias[mine.inside], bias);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            pairs[2 * j] = step_size(get(in.delta[i], j) + bias[j]).value;
            pairs[2 * j + 1] = pairs[2 * j] * get(in.x[i], j);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) tile.steps.pair[row][swizzle(mine.inside / 2 + j)] = *(float4*)(pairs + 4 * j);
    }
#pragma unroll
    for (int i = 0; i < INPUTS; ++i) {
        const int row = mine.input_row + i * INPUTS_AT_ONCE;
        if (INPUTS_AT_ONCE > STEPS && row >= STEPS) break;
        tile.B[row][mine.state] = to_float(in.B[i]), tile.C[row][mine.state] = to_float(in.C[i]);
    }
}

// One step of a thread's channels: its share of the sum for y.
INLINE void scan_step(const Tile& tile, int t, const float (&a)[K][NS], float (&h)[K][NS], float* y) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K;
    float dt[K], u[K], b[NS], c[NS];
    tile.steps.read(t, channel, dt, u);
    read_states(&tile.B[t][lane * NS], b);
    read_states(&tile.C[t][lane * NS], c);
#pragma unroll
    for (int k = 0; k < K; ++k) {
        y[k] = 0.f;
#pragma unroll
        for (int n = 0; n < NS; ++n) {
            h[k][n] = fmaf(ex2(dt[k] * a[k][n]), h[k][n], u[k] * b[n]);
            y[k] = fmaf(h[k][n], c[n], y[k]);
        }
    }
}

INLINE void scan_tile(Tile& tile, const float (&a)[K][NS], float (&h)[K][NS]) {
    constexpr int TOGETHER = LANES > K ? LANES / K : 1;  // steps whose sums over lanes are taken at once
    constexpr int KEPT = TOGETHER * K / LANES, PASSES = STEPS / TOGETHER < UNROLL ? STEPS / TOGETHER : UNROLL;
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K;
#pragma unroll 1
    for (int begin = 0; begin < STEPS; begin += PASSES * TOGETHER) {
        float y[PASSES][TOGETHER * K];
#pragma unroll
        for (int i = 0; i < PASSES; ++i) {
#pragma unroll
            for (int s = 0; s < TOGETHER; ++s) scan_step(tile, begin + i * TOGETHER + s, a, h, y[i] + s * K);
            reduce<TOGETHER * K, LANES, 1>(y[i], lane);
        }
        // Written last: a write holds up the reads that come after it.
#pragma unroll
        for (int i = 0; i < PASSES * KEPT; ++i) {
            const int index = lane * KEPT + i % KEPT;
            tile.y[begin + i / KEPT * TOGETHER + index / K][channel + index % K] = y[i / KEPT][i % KEPT];
        }
    }
}

INLINE void write(const Problem& p, const Mine& mine, u32 step, u32 end, const Inputs& in, const Tile& tile, T* to) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int row = mine.row + i * AT_ONCE;
        if (row >= STEPS || step + row >= end) break;
        Piece out;
        float y[8], gate[8], skip[8];
        read8(&tile.y[row][mine.inside], y), read8(&tile.weights.skip[mine.inside], skip);
        if (GATE) silu(in.z[i], gate);
#pragma unroll
        for (int j = 0; j < 8; ++j) y[j] = fmaf(skip[j], get(in.x[i], j), y[j]) * (GATE ? gate[j] : 1.f);
#pragma unroll
        for (int j = 0; j < 8; j += 2) put(out, j, y[j], y[j + 1]);
        store(at_step(to, p.channels, step + row, mine.channel), out, mine.count, p.aligned);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) forward(
    PROBLEM, const float* initial, const float* ends, const float* sums, T* y, float* final, Saved* saved) {
    const Problem p = THE_PROBLEM;
    __shared__ Tile tile;
    const Place at = find_place(p);
    const Segment s = find_segment(p, at.slot);
    if (s.begin >= s.end) return;
    const u64 state = (u64)s.row * p.channels * p.states;
    float a[K][NS] = {}, h[K][NS] = {};
    each_state(p, at, [&](int k, int n, u32 offset) {
        a[k][n] = p.A[offset] * LOG2E;
        if (initial) h[k][n] = initial[state + offset];
    });
    carry_over(p, at, a, ends, sums, at.slot - 1, s.index, -1, h);
    const Mine mine(p, at);
    tile.weights.stage(p, at);
    __syncthreads();
    Inputs next, now;
    fetch(p, mine, s.begin, s.end, next);
    u32 span = s.saved;
    for (u32 step = s.begin; step < s.end; step += STEPS) {
        if (saved && (step - s.begin) % SPAN == 0) save_states(p, at, span++, h, saved);
        now = next;
        stage(now, mine, tile);
        __syncthreads();
        fetch(p, mine, step + STEPS, s.end, next);
        scan_tile(tile, a, h);
        __syncthreads();
        write(p, mine, step, s.end, now, tile, y);
    }
    if (s.index == s.count - 1) each_state(p, at, [&](int k, int n, u32 offset) { final[state + offset] = h[k][n]; });
}
