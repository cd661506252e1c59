// Gradients, from the last tile of a segment to its first. A tile starts from its saved state.
//
// With h_t = e_t h_{t-1} + (dt x)_t B_t, e_t = exp(dt_t A), y_t = C_t h_t, and g_t the gradient of h_t:
//     g_t = dy_t C_t + r_t,   r_{t-1} = e_t g_t,   q_t = r_{t-1} h_{t-1}   (the gradient of dt_t A)
//     dC_t = sum over channels of dy_t h_t,   dB_t = sum over channels of (dt x)_t g_t,
//     d(dt x)_t = sum over states of g_t B_t,   d(dt)_t = sum over states of q_t A,   dA = sum over steps of dt_t q_t.
// The states of PART steps at a time are kept in registers together with their decays. So a tile is scanned twice: first
// without outputs, to have the state before each part, then part by part from the last, forth and back.
constexpr int PART = 4, PARTS = STEPS / PART, WARPS = THREADS / 32, ACROSS = 32 / LANES;
static_assert(SPAN == STEPS, "a tile is a span");

struct Tile {
    Steps steps;                         // (dt, dt x) in; (d(dt), d(dt x)) out
    float y[STEPS][CHANNELS];            // gradient of y before skip and gate in; y out
    float B[STEPS][N], C[STEPS][N];
    float before[PARTS][K][THREADS][NS];
    float dBC[WARPS][STEPS][2][N];       // each warp's sums over its channels
    float skip[CHANNELS], bias[CHANNELS];
    float sums[16][THREADS];             // each thread's sums over time, for D and bias
};

// Where a thread reads, relative to its segment.
struct Columns { Column x, delta, z, dy, B, C; };
struct Inputs { Piece x, delta, z, dy; };

__device__ __forceinline__ Inputs fetch(const Columns& from, i64 step, int count, bool aligned) {
    Inputs in;
    if (aligned && count >= 8) {
        in.x = from.x.whole(step), in.delta = from.delta.whole(step), in.dy = from.dy.whole(step);
        if (GATE) in.z = from.z.whole(step);
    } else {
        in.x = from.x.some(step, count), in.delta = from.delta.some(step, count, NO_STEP), in.dy = from.dy.some(step, count);
        if (GATE) in.z = from.z.some(step, count);
    }
    return in;
}

__device__ __forceinline__ void stage(const Columns& from, const Mine& mine, i64 step, i64 left, const Problem& p, Tile& tile) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int row = mine.row + i * AT_ONCE;
        if (AT_ONCE > STEPS && row >= STEPS) break;
        const Inputs in = fetch(from, step + i * AT_ONCE, row < left ? mine.count : 0, p.aligned);
        float pairs[16];
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            pairs[2 * j] = step_size(get(in.delta, j) + tile.bias[mine.channel + j]).value;
            pairs[2 * j + 1] = pairs[2 * j] * get(in.x, j);
            float dy = get(in.dy, j);
            if (GATE) dy *= get(in.z, j) * sigmoid(get(in.z, j));
            tile.y[row][mine.channel + j] = dy;
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) tile.steps.pair[row][swizzle(mine.channel / 2 + j)] = *(float4*)(pairs + 4 * j);
    }
#pragma unroll
    for (int i = 0; i < INPUTS; ++i) {
        const int row = mine.input_row + i * INPUTS_AT_ONCE;
        if (row >= STEPS) break;
        const bool exists = row < left && mine.state < p.states;
        tile.B[row][mine.state] = exists ? to_float(from.B.from[(step + i * INPUTS_AT_ONCE) * from.B.row]) : 0.f;
        tile.C[row][mine.state] = exists ? to_float(from.C.from[(step + i * INPUTS_AT_ONCE) * from.C.row]) : 0.f;
    }
}

// The state before each part, from the one before the tile.
__device__ __forceinline__ void scan_parts(const float (&a)[K][NS], float (&h)[K][NS], Tile& tile) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K;
#pragma unroll 1
    for (int part = 0; part < PARTS; ++part) {
#pragma unroll
        for (int k = 0; k < K; ++k)
#pragma unroll
            for (int n = 0; n < NS; ++n) tile.before[part][k][threadIdx.x][n] = h[k][n];
        if (part == PARTS - 1) break;
#pragma unroll
        for (int t = part * PART; t < (part + 1) * PART; ++t) {
            float dt[K], u[K], b[NS];
            tile.steps.read(t, channel, dt, u);
            read_states(&tile.B[t][lane * NS], b);
#pragma unroll
            for (int k = 0; k < K; ++k)
#pragma unroll
                for (int n = 0; n < NS; ++n) h[k][n] = fmaf(ex2(dt[k] * a[k][n]), h[k][n], u[k] * b[n]);
        }
    }
}

// The states of a part, h[s] after its step s, its decays, and y summed over a channel's lanes.
__device__ __forceinline__ void forth(const float (&a)[K][NS], int part, const Tile& tile, float (&h)[PART][K][NS],
                                      float (&e)[PART][K][NS], float (&y)[PART * K]) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K;
    float now[K][NS];
#pragma unroll
    for (int k = 0; k < K; ++k) read_states(tile.before[part][k][threadIdx.x], now[k]);
#pragma unroll
    for (int s = 0; s < PART; ++s) {
        float b[NS], c[NS], dt[K], u[K];
        tile.steps.read(part * PART + s, channel, dt, u);
        read_states(&tile.B[part * PART + s][lane * NS], b);
        read_states(&tile.C[part * PART + s][lane * NS], c);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            y[s * K + k] = 0.f;
#pragma unroll
            for (int n = 0; n < NS; ++n) {
                e[s][k][n] = ex2(dt[k] * a[k][n]);
                h[s][k][n] = now[k][n] = fmaf(e[s][k][n], now[k][n], u[k] * b[n]);
                y[s * K + k] = fmaf(c[n], now[k][n], y[s * K + k]);
            }
        }
    }
    reduce<PART * K, LANES, 1>(y, lane);
}

// The gradients of a part; r comes from later steps and leaves for earlier ones.
__device__ __forceinline__ void back(const float (&a)[K][NS], int part, const Tile& tile, const float (&h)[PART][K][NS],
                                     const float (&e)[PART][K][NS], float (&r)[K][NS], float (&dA)[K][NS],
                                     float (&dstep)[PART * K * 2], float (&dBC)[PART * 2 * NS]) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K;
#pragma unroll
    for (int s = PART - 1; s >= 0; --s) {
        const int t = part * PART + s;
        float b[NS], c[NS], dt[K], u[K];
        tile.steps.read(t, channel, dt, u);
        read_states(&tile.B[t][lane * NS], b);
        read_states(&tile.C[t][lane * NS], c);
#pragma unroll
        for (int n = 0; n < 2 * NS; ++n) dBC[s * 2 * NS + n] = 0.f;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const float dy = tile.y[t][channel + k];
            const float* before = tile.before[part][k][threadIdx.x];
            float ddt = 0.f, du = 0.f;
#pragma unroll
            for (int n = 0; n < NS; ++n) {
                float &dB = dBC[s * 2 * NS + n], &dC = dBC[s * 2 * NS + NS + n];
                const float g = fmaf(dy, c[n], r[k][n]);
                dC = fmaf(dy, h[s][k][n], dC);
                dB = fmaf(u[k], g, dB);
                du = fmaf(g, b[n], du);
                r[k][n] = e[s][k][n] * g;
                const float q = r[k][n] * (s ? h[s - 1][k][n] : before[n]);
                ddt = fmaf(q, a[k][n], ddt);
                dA[k][n] = fmaf(q, dt[k], dA[k][n]);
            }
            dstep[(s * K + k) * 2] = ddt * LN2, dstep[(s * K + k) * 2 + 1] = du;
        }
    }
}

// Sum over the lanes that share channels, or states, and put the sums in place of what they came from.
__device__ __forceinline__ void write_part(int begin, const float (&y)[PART * K], float (&dstep)[PART * K * 2],
                                           float (&dBC)[PART * 2 * NS], Tile& tile) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K, across = threadIdx.x % 32 / LANES;
    reduce<PART * K * 2, LANES, 1>(dstep, lane);
    reduce<PART * 2 * NS, ACROSS, LANES>(dBC, across);
    __syncwarp();  // the others of a channel have read its inputs
#pragma unroll
    for (int i = 0; i < share(PART * K, LANES); ++i) {
        const int index = first(PART * K, LANES, lane) + i;
        tile.y[begin + index / K][channel + index % K] = y[i];
    }
#pragma unroll
    for (int i = 0; i < share(PART * K * 2, LANES); ++i) {
        const int index = first(PART * K * 2, LANES, lane) + i, c = channel + index / 2 % K;
        ((float*)&tile.steps.pair[begin + index / 2 / K][swizzle(c / 2)])[c % 2 * 2 + index % 2] = dstep[i];
    }
#pragma unroll
    for (int i = 0; i < share(PART * 2 * NS, ACROSS); ++i) {
        const int index = first(PART * 2 * NS, ACROSS, across) + i;
        tile.dBC[threadIdx.x / 32][begin + index / (2 * NS)][index / NS % 2][lane * NS + index % NS] = dBC[i];
    }
}

__device__ __forceinline__ void write_piece(const float (&v)[8], T* to, int count, bool aligned) {
    Piece piece;
#pragma unroll
    for (int j = 0; j < 8; j += 2) put(piece, j, v[j], v[j + 1]);
    store(to, piece, count, aligned);
}

// Gradients of x, delta and z, elementwise, and each thread's sums for D and bias.
__device__ __forceinline__ void write(const Columns& from, const Mine& mine, i64 step, i64 left, const Problem& p, Tile& tile,
                                      T* dx, T* ddelta, T* dz) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int row = mine.row + i * AT_ONCE;
        if (row >= min(left, (i64)STEPS)) break;
        const Inputs in = fetch(from, step + i * AT_ONCE, mine.count, p.aligned);
        float pairs[16], gx[8], gdelta[8], gz[8];
#pragma unroll
        for (int j = 0; j < 4; ++j) *(float4*)(pairs + 4 * j) = tile.steps.pair[row][swizzle(mine.channel / 2 + j)];
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const int c = mine.channel + j;
            const float x = get(in.x, j), skip = tile.skip[c];
            const Curve dt = step_size(get(in.delta, j) + tile.bias[c]);
            float dy = get(in.dy, j);
            if (GATE) {
                const float z = get(in.z, j), gate = sigmoid(z);
                gz[j] = dy * fmaf(skip, x, tile.y[row][c]) * gate * fmaf(z, 1.f - gate, 1.f);
                dy *= z * gate;
            }
            gdelta[j] = fmaf(pairs[2 * j + 1], x, pairs[2 * j]) * dt.slope;
            gx[j] = fmaf(pairs[2 * j + 1], dt.value, dy * skip);
            tile.sums[j][threadIdx.x] += dy * x;
            tile.sums[8 + j][threadIdx.x] += gdelta[j];
        }
        const i64 offset = (step + i * AT_ONCE) * p.channels;
        write_piece(gx, dx + offset, mine.count, p.aligned);
        write_piece(gdelta, ddelta + offset, mine.count, p.aligned);
        if (GATE) write_piece(gz, dz + offset, mine.count, p.aligned);
    }
}

// The block's share of dB and dC, to be added up over the blocks.
__device__ __forceinline__ void write_dBC(i64 left, i64 states, const Tile& tile, float* to) {
#pragma unroll
    for (int i = 0; i < (STEPS * 2 * N + THREADS - 1) / THREADS; ++i) {
        const int index = i * THREADS + threadIdx.x, row = index / N, n = index % N;  // rows: dB and dC in turns
        if (row >= 2 * min(left, (i64)STEPS) || n >= states) break;
        float sum = 0.f;
#pragma unroll
        for (int warp = 0; warp < WARPS; ++warp) sum += (&tile.dBC[warp][0][0][0])[index];
        to[row * states + n] = sum;
    }
}

__device__ __forceinline__ void start_sums(const Problem& p, const Place& at, Tile& tile) {
    for (int c = threadIdx.x; c < CHANNELS; c += THREADS) {
        tile.skip[c] = p.D && c < at.width ? p.D[at.channel + c] : 0.f;
        tile.bias[c] = p.bias && c < at.width ? p.bias[at.channel + c] : 0.f;
    }
#pragma unroll
    for (int j = 0; j < 16; ++j) tile.sums[j][threadIdx.x] = 0.f;
}

// The segment's share of the gradients of D and bias: (slots, 2, D).
__device__ __forceinline__ void write_sums(const Problem& p, const Place& at, const Tile& tile, float* to) {
    for (int index = threadIdx.x; index < 2 * CHANNELS; index += THREADS) {
        const int c = index % CHANNELS;
        if (c >= at.width) continue;
        float sum = 0.f;  // threads c / 8, c / 8 + CHANNELS / 8, ... have worked on this channel
        for (int i = c / 8; i < THREADS; i += CHANNELS / 8) sum += tile.sums[index / CHANNELS * 8 + c % 8][i];
        to[(at.slot * 2 + index / CHANNELS) * p.channels + at.channel + c] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) backward(
    PROBLEM, const T* dout, const float* dfinal, const float* ends, const float* sums, Saved* saved,
    T* dx, T* ddelta, T* dz, float* dA, float* dBC_parts, float* dDbias, float* dinitial) {
    const Problem p = THE_PROBLEM;
    __shared__ Tile tile;
    const Place at = find_place(p);
    const Segment s = find_segment(at.slot, p.length, p.segment, p.bounds, p.rows);
    if (s.begin >= s.end) return;
    float a[K][NS] = {}, r[K][NS] = {}, da[K][NS] = {};
    each_state(p, at, [&](int k, int n, i64 offset) {
        a[k][n] = p.A[offset] * LOG2E;
        if (dfinal) r[k][n] = dfinal[s.row * p.channels * p.states + offset];
    });
    carry_over(p, at, a, ends, sums, at.slot + 1, s.count - 1 - s.index, 1, r);
    const Mine mine(at);
    start_sums(p, at, tile);
    const i64 channel = at.channel + mine.channel, state = at.group * p.states + mine.state;
    const i64 first = s.begin + mine.row, input = s.begin + mine.input_row;
    const Columns from = {{p.x, p.x_row, first, channel}, {p.delta, p.delta_row, first, channel},
                          {p.z, p.z_row, first, channel}, {dout, p.channels, first, channel},
                          {p.B, p.B_row, input, state}, {p.C, p.C_row, input, state}};
    dx += first * p.channels + channel, ddelta += first * p.channels + channel, dz += first * p.channels + channel;
    dBC_parts += (blockIdx.x % at.blocks * (p.bounds ? p.length : p.rows * p.length) + s.begin) * 2 * p.states;
    __syncthreads();
    for (i64 i = (s.end - s.begin - 1) / STEPS; i >= 0; --i) {
        const i64 step = i * STEPS, left = s.end - s.begin - step;
        float h[K][NS];
        load_states(p, at, s.saved + i, saved, h);
        stage(from, mine, step, left, p, tile);
        __syncthreads();
        scan_parts(a, h, tile);
#pragma unroll 1
        for (int part = PARTS - 1; part >= 0; --part) {
            float kept[PART][K][NS], e[PART][K][NS], y[PART * K], dstep[PART * K * 2], dBC[PART * 2 * NS];
            forth(a, part, tile, kept, e, y);
            asm volatile("" ::: "memory");  // `back` is to read the tile again, not to keep it in registers
            back(a, part, tile, kept, e, r, da, dstep, dBC);
            write_part(part * PART, y, dstep, dBC, tile);
        }
        __syncthreads();
        write(from, mine, step, left, p, tile, dx, ddelta, dz);
        write_dBC(left, p.states, tile, dBC_parts + step * 2 * p.states);
        __syncthreads();
    }
    each_state(p, at, [&](int k, int n, i64 offset) {
        dA[at.slot * p.channels * p.states + offset] = da[k][n];
        if (s.index == 0) dinitial[s.row * p.channels * p.states + offset] = r[k][n];
    });
    write_sums(p, at, tile, dDbias);
}
