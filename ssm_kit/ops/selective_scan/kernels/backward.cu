// Gradients, from the last tile of a segment to its first. A tile starts from its saved state.
//
// With h_t = e_t h_{t-1} + (dt x)_t B_t, e_t = exp(dt_t A), y_t = C_t h_t, and g_t the gradient of h_t:
//     g_t = dy_t C_t + r_t,   r_{t-1} = e_t g_t,   q_t = r_{t-1} h_{t-1}   (the gradient of dt_t A)
//     dC_t = sum over channels of dy_t h_t,   dB_t = sum over channels of (dt x)_t g_t,
//     d(dt x)_t = sum over states of g_t B_t,   d(dt)_t = sum over states of q_t A,   dA = sum over steps of dt_t q_t.
// The states of PART steps at a time are kept in registers together with their decays. So a tile is scanned twice:
// first without outputs, to have the state before each part, then part by part from the last, forth and back.
//
// Sums over states run over the LANES threads of a channel, sums over channels over the ACROSS groups of a warp. The
// latter are the larger part. So each group keeps its states in an order of its own, state n in register n ^ order:
// then what a thread keeps and what it sends are registers, not choices.
constexpr int PARTS = STEPS / PART, WARPS = THREADS / 32, ACROSS = 32 / LANES, ORDERS = ACROSS < NS ? ACROSS : NS;
constexpr int PART_SIZE = K * 32 * NS > PART * 2 * N ? K * 32 * NS : PART * 2 * N;
static_assert(SPAN == STEPS, "a tile is a span");
INLINE int my_order() { return threadIdx.x % 32 / LANES % ORDERS * (NS / ORDERS); }

struct Tile {
    Steps steps;                         // (dt, dt x) in; (d(dt), d(dt x)) out
    float y[STEPS][CHANNELS + 8];        // gradient of y before skip and gate in; y out
    float B[ORDERS][STEPS * N + 16], C[ORDERS][STEPS * N + 16];  // one in each order; + 16: in banks of their own
    // Of each part and warp: its threads' states before the part; later, its sums dB and dC over channels [PART][2][N].
    float part[PARTS][WARPS][PART_SIZE];
    float skip[CHANNELS], bias[CHANNELS];
    float4 sums[4][THREADS];             // each thread's sums over time, for D and bias
};

INLINE void read_channels(const float* from, float (&v)[K]) {
    if constexpr (K == 2) *(float2*)v = *(const float2*)from;
    else if constexpr (K == 4) *(float4*)v = *(const float4*)from;
    else v[0] = *from;
}

struct Pieces { Piece x, delta, z, dy; };

INLINE Pieces fetch(const Problem& p, const Mine& mine, u32 t, u32 end, const T* dout) {
    const int count = t < end ? mine.count : 0;
    const T *x = at_step(p.x, p.x_row, t, mine.channel), *delta = at_step(p.delta, p.delta_row, t, mine.channel);
    const T *z = at_step(p.z, p.z_row, t, mine.channel), *dy = at_step(dout, p.channels, t, mine.channel);
    Pieces in;
    if (p.aligned && count >= 8) {
        in.x = *(const Piece*)x, in.delta = *(const Piece*)delta, in.dy = *(const Piece*)dy;
        if (GATE) in.z = *(const Piece*)z;
    } else {
        in.x = load_some(x, count, 0.f), in.delta = load_some(delta, count, NO_STEP), in.dy = load_some(dy, count, 0.f);
        if (GATE) in.z = load_some(z, count, 0.f);
    }
    return in;
}

// A tile as it comes from memory.
struct Inputs { Pieces pieces[PER_THREAD]; T B[INPUTS], C[INPUTS]; Share states[K]; };  // words: to unpack is to wait

INLINE void fetch_tile(const Problem& p, const Place& at, const Mine& mine, u32 step, u32 end, u32 span,
                                           const T* dout, Saved* saved, Inputs& in) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) in.pieces[i] = fetch(p, mine, step + mine.row + i * AT_ONCE, end, dout);
#pragma unroll
    for (int i = 0; i < INPUTS; ++i) {
        const u32 t = step + mine.input_row + i * INPUTS_AT_ONCE;
        in.B[i] = in.C[i] = T();
        if (t < end && mine.state < p.states) {
            in.B[i] = *at_step(p.B, p.B_row, t, mine.input);
            in.C[i] = *at_step(p.C, p.C_row, t, mine.input);
        }
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
        const Share* from = share_of(p, at, span, k, saved);
        in.states[k] = from ? *from : Share{};
    }
}

INLINE void stage(const Mine& mine, const Inputs& in, Tile& tile) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int row = mine.row + i * AT_ONCE;
        if (AT_ONCE > STEPS && row >= STEPS) break;
        const Pieces& now = in.pieces[i];
        float pairs[16], dy[8], bias[8];
        read8(&tile.bias[mine.inside], bias);
        if (GATE) silu(now.z, dy);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            pairs[2 * j] = step_size(get(now.delta, j) + bias[j]).value;
            pairs[2 * j + 1] = pairs[2 * j] * get(now.x, j);
            dy[j] = get(now.dy, j) * (GATE ? dy[j] : 1.f);
        }
#pragma unroll
        for (int j = 0; j < 8; j += 4) *(float4*)&tile.y[row][mine.inside + j] = *(float4*)(dy + j);
#pragma unroll
        for (int j = 0; j < 4; ++j) tile.steps.pair[row][swizzle(mine.inside / 2 + j)] = *(float4*)(pairs + 4 * j);
    }
#pragma unroll
    for (int i = 0; i < INPUTS; ++i) {
        const int row = mine.input_row + i * INPUTS_AT_ONCE;
        if (row >= STEPS) break;
#pragma unroll
        for (int order = 0; order < ORDERS; ++order) {
            const int place = row * N + (mine.state ^ order * (NS / ORDERS));
            tile.B[order][place] = to_float(in.B[i]), tile.C[order][place] = to_float(in.C[i]);
        }
    }
}

INLINE float* before_part(const Tile& tile, int part, int k) {
    return (float*)tile.part[part][threadIdx.x / 32] + (k * 32 + threadIdx.x % 32) * NS;
}

// From the order of memory to the group's own: h[n] and h[n ^ order] change places.
INLINE void put_in_order(const Share (&from)[K], float (&h)[K][NS]) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int n = 0; n < NS; ++n) h[k][n] = unpack(from[k].words, n, Saved());
#pragma unroll
        for (int bit = NS / ORDERS; bit < NS; bit *= 2)
#pragma unroll
            for (int n = 0; n < NS; ++n) {
                if (n & bit) continue;
                const bool change = my_order() & bit;
                const float low = h[k][n], high = h[k][n | bit];
                h[k][n] = change ? high : low, h[k][n | bit] = change ? low : high;
            }
    }
}

// The state before each part, from the one before the tile.
INLINE void scan_parts(const float (&a)[K][NS], float (&h)[K][NS], Tile& tile) {
    const int channel = threadIdx.x / LANES * K;
    const float* B = &tile.B[threadIdx.x % 32 / LANES % ORDERS][threadIdx.x % LANES * NS];
#pragma unroll 1
    for (int part = 0; part < PARTS; ++part) {
#pragma unroll
        for (int k = 0; k < K; ++k)
#pragma unroll
            for (int n = 0; n < NS; ++n) before_part(tile, part, k)[n] = h[k][n];
        if (part == PARTS - 1) break;
#pragma unroll
        for (int t = part * PART; t < (part + 1) * PART; ++t) {
            float dt[K], u[K], b[NS];
            tile.steps.read(t, channel, dt, u);
            read_states(B + t * N, b);
#pragma unroll
            for (int k = 0; k < K; ++k)
#pragma unroll
                for (int n = 0; n < NS; ++n) h[k][n] = fmaf(ex2(dt[k] * a[k][n]), h[k][n], u[k] * b[n]);
        }
    }
}

// The states of a part, h[s] after its step s, its decays, and y summed over a channel's lanes.
INLINE void forth(const float (&a)[K][NS], int part, const Tile& tile, float (&h)[PART][K][NS],
                                      float (&e)[PART][K][NS], float (&y)[PART * K]) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K, order = threadIdx.x % 32 / LANES % ORDERS;
    const float *B = &tile.B[order][lane * NS], *C = &tile.C[order][lane * NS];
    float now[K][NS];
#pragma unroll
    for (int k = 0; k < K; ++k) read_states(before_part(tile, part, k), now[k]);
#pragma unroll
    for (int s = 0; s < PART; ++s) {
        float b[NS], c[NS], dt[K], u[K];
        tile.steps.read(part * PART + s, channel, dt, u);
        read_states(B + (part * PART + s) * N, b);
        read_states(C + (part * PART + s) * N, c);
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
INLINE void back(const float (&a)[K][NS], int part, const Tile& tile, const float (&h)[PART][K][NS],
                                     const float (&e)[PART][K][NS], float (&r)[K][NS], float (&dA)[K][NS],
                                     float (&dstep)[PART * K * 2], float (&dBC)[PART * 2 * NS]) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K, order = threadIdx.x % 32 / LANES % ORDERS;
#ifdef REREAD
    asm volatile("" : "+r"(part));  // hides that `forth` has read the same: read it again rather than keep it
#endif
    const float *B = &tile.B[order][lane * NS], *C = &tile.C[order][lane * NS];
#pragma unroll
    for (int s = PART - 1; s >= 0; --s) {
        const int t = part * PART + s;
        float b[NS], c[NS], dt[K], u[K];
        tile.steps.read(t, channel, dt, u);
        read_states(B + t * N, b);
        read_states(C + t * N, c);
        float dys[K];
        read_channels(&tile.y[t][channel], dys);
#pragma unroll
        for (int n = 0; n < 2 * NS; ++n) dBC[s * 2 * NS + n] = 0.f;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const float dy = dys[k];
            const float* before = before_part(tile, part, k);
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
            dstep[(s * K + k) * 2] = ddt, dstep[(s * K + k) * 2 + 1] = du;
        }
    }
}

// Sum v[COUNT][WIDTH], the last axis in each group's own order, over the groups. A level of the butterfly halves WIDTH.
template <int COUNT, int WIDTH, int GROUPS> INLINE void reduce_ordered(float* v) {
    if constexpr (GROUPS > 1) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
#pragma unroll
            for (int n = 0; n < WIDTH / 2; ++n)
                v[i * WIDTH / 2 + n] =
                    v[i * WIDTH + n] + __shfl_xor_sync(~0u, v[i * WIDTH + WIDTH / 2 + n], GROUPS / 2 * LANES);
        reduce_ordered<COUNT, WIDTH / 2, GROUPS / 2>(v);
    }
}

template <int COUNT> INLINE void store_some(float* to, const float* from) {
    if constexpr (COUNT == 4) *(float4*)to = *(const float4*)from;
    else if constexpr (COUNT == 2) *(float2*)to = *(const float2*)from;
    else *to = *from;
}

// Sum over the lanes that share channels, or states, and put the sums in place of what they came from.
INLINE void write_part(int part, const float (&y)[PART * K], float (&dstep)[PART * K * 2],
                                           float (&dBC)[PART * 2 * NS], Tile& tile) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K, across = threadIdx.x % 32 / LANES;
    const int begin = part * PART;
    reduce<PART * K * 2, LANES, 1>(dstep, lane);
    constexpr int LEFT = NS / ORDERS, REST = ACROSS / ORDERS, SUMS = PART * 2 * LEFT;  // states left, groups to go
    reduce_ordered<PART * 2, NS, ORDERS>(dBC);
    reduce<SUMS, REST, LANES * ORDERS>(dBC, across / ORDERS);
    __syncwarp();  // the others of a channel have read its inputs
    // What lies together is written at once: y of two channels, both gradients of two channels.
    constexpr int YS = share(PART * K, LANES), STEPPED = share(PART * K * 2, LANES);
    constexpr int Y_PIECE = K % 2 == 0 && YS > 1 ? 2 : 1, PIECE = K % 2 == 0 && STEPPED > 2 ? 4 : STEPPED > 1 ? 2 : 1;
#pragma unroll
    for (int i = 0; i < YS; i += Y_PIECE) {
        const int index = first(PART * K, LANES, lane) + i;
        store_some<Y_PIECE>(&tile.y[begin + index / K][channel + index % K], y + i);
    }
#pragma unroll
    for (int i = 0; i < STEPPED; i += PIECE) {
        const int index = first(PART * K * 2, LANES, lane) + i, c = channel + index / 2 % K;
        float* pair = (float*)&tile.steps.pair[begin + index / 2 / K][swizzle(c / 2)] + c % 2 * 2;
        store_some<PIECE>(pair + index % 2, dstep + i);
    }
#pragma unroll
    for (int i = 0; i < share(SUMS, REST); ++i) {
        const int index = first(SUMS, REST, across / ORDERS) + i, n = my_order() + index % LEFT;
        tile.part[part][threadIdx.x / 32][index / LEFT * N + lane * NS + n] = dBC[i];
    }
}

INLINE void write_piece(const float (&v)[8], T* to, int count, bool aligned) {
    Piece piece;
#pragma unroll
    for (int j = 0; j < 8; j += 2) put(piece, j, v[j], v[j + 1]);
    store(to, piece, count, aligned);
}

// Gradients of x, delta and z at one step, elementwise, and each thread's sums for D and bias.
INLINE void write(const Problem& p, const Mine& mine, int row, u32 t, const Pieces& in, Tile& tile,
                                      T* dx, T* ddelta, T* dz) {
    float pairs[16], y[8], skip[8], bias[8], sums[16], gate[8], gx[8], gdelta[8], gz[8];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        *(float4*)(pairs + 4 * j) = tile.steps.pair[row][swizzle(mine.inside / 2 + j)];
        *(float4*)(sums + 4 * j) = tile.sums[j][threadIdx.x];
    }
    read8(&tile.y[row][mine.inside], y), read8(&tile.skip[mine.inside], skip), read8(&tile.bias[mine.inside], bias);
    if (GATE) {
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            const float z[2] = {get(in.z, j), get(in.z, j + 1)};
            sigmoids(z, gate + j);
        }
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        const float x = get(in.x, j), du = pairs[2 * j + 1];
        const Curve dt = step_size(get(in.delta, j) + bias[j]);
        float dy = get(in.dy, j);
        if (GATE) {
            const float z = get(in.z, j), upper = z * gate[j];
            gz[j] = dy * fmaf(skip[j], x, y[j]) * (gate[j] + upper * (1.f - gate[j]));
            dy *= upper;
        }
        gdelta[j] = fmaf(du, x, pairs[2 * j] * LN2) * dt.slope;
        gx[j] = fmaf(du, dt.value, dy * skip[j]);
        sums[j] = fmaf(dy, x, sums[j]), sums[8 + j] += gdelta[j];
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) tile.sums[j][threadIdx.x] = *(float4*)(sums + 4 * j);
    write_piece(gx, at_step(dx, p.channels, t, mine.channel), mine.count, p.aligned);
    write_piece(gdelta, at_step(ddelta, p.channels, t, mine.channel), mine.count, p.aligned);
    if (GATE) write_piece(gz, at_step(dz, p.channels, t, mine.channel), mine.count, p.aligned);
}

// The block's share of dB and dC, to be added up over the blocks.
INLINE void write_dBC(const Problem& p, int left, const Tile& tile, float* to) {
#pragma unroll
    for (int i = 0; i < (STEPS * 2 * N + THREADS - 1) / THREADS; ++i) {
        const int index = i * THREADS + threadIdx.x, row = index / N, n = index % N;  // rows: dB and dC in turns
        if (row >= 2 * min(left, STEPS) || n >= p.states) break;
        float sum = 0.f;
#pragma unroll
        for (int warp = 0; warp < WARPS; ++warp) sum += tile.part[row / 2 / PART][warp][row % (2 * PART) * N + n];
        to[row * p.states + n] = sum;
    }
}

INLINE void start_sums(const Problem& p, const Place& at, Tile& tile) {
    for (int c = threadIdx.x; c < CHANNELS; c += THREADS) {
        tile.skip[c] = p.D && c < at.width ? p.D[at.channel + c] : 0.f;
        tile.bias[c] = p.bias && c < at.width ? p.bias[at.channel + c] : 0.f;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) tile.sums[j][threadIdx.x] = make_float4(0.f, 0.f, 0.f, 0.f);
}

// The segment's share of the gradients of D and bias: (slots, 2, D).
INLINE void write_sums(const Problem& p, const Place& at, const Tile& tile, float* to) {
    for (int index = threadIdx.x; index < 2 * CHANNELS; index += THREADS) {
        const int c = index % CHANNELS;
        if (c >= at.width) continue;
        float sum = 0.f;  // threads c / 8, c / 8 + CHANNELS / 8, ... have worked on this channel
        for (int i = c / 8; i < THREADS; i += CHANNELS / 8)
            sum += ((const float*)&tile.sums[index / CHANNELS * 2 + c % 8 / 4][i])[c % 4];
        to[(u64)(at.slot * 2 + index / CHANNELS) * p.channels + at.channel + c] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) backward(
    PROBLEM, const T* dout, const float* dfinal, const float* ends, const float* sums, Saved* saved,
    T* dx, T* ddelta, T* dz, float* dA, float* dBC_parts, float* dDbias, float* dinitial) {
    const Problem p = THE_PROBLEM;
    __shared__ Tile tile;
    const Place at = find_place(p);
    const Segment s = find_segment(p, at.slot);
    if (s.begin >= s.end) return;
    const u64 state = (u64)s.row * p.channels * p.states;
    float a[K][NS] = {}, r[K][NS] = {}, da[K][NS] = {};
    each_state(p, at, [&](int k, int n, u32 offset) {
        a[k][n] = p.A[offset] * LOG2E;
        if (dfinal) r[k][n] = dfinal[state + offset];
    }, my_order());
    carry_over(p, at, a, ends, sums, at.slot + 1, s.count - 1 - s.index, 1, r, my_order());
    const Mine mine(p, at);
    start_sums(p, at, tile);
    dBC_parts += (u64)(blockIdx.x % at.blocks) * (p.bounds ? p.length : p.rows * p.length) * 2 * p.states;
    const u32 last = (s.end - s.begin - 1) / STEPS;
    Inputs in;
    fetch_tile(p, at, mine, s.begin + last * STEPS, s.end, s.saved + last, dout, saved, in);
    __syncthreads();
    for (u32 i = last + 1; i-- > 0;) {
        const u32 step = s.begin + i * STEPS;
        float h[K][NS];
        Pieces now[PER_THREAD];
#pragma unroll
        for (int j = 0; j < PER_THREAD; ++j) now[j] = in.pieces[j];
        stage(mine, in, tile);
        put_in_order(in.states, h);
        __syncthreads();
        if (i > 0) fetch_tile(p, at, mine, step - STEPS, s.end, s.saved + i - 1, dout, saved, in);
        scan_parts(a, h, tile);
#pragma unroll 1
        for (int part = PARTS - 1; part >= 0; --part) {
            float kept[PART][K][NS], e[PART][K][NS], y[PART * K], dstep[PART * K * 2], dBC[PART * 2 * NS];
            forth(a, part, tile, kept, e, y);
            back(a, part, tile, kept, e, r, da, dstep, dBC);
            write_part(part, y, dstep, dBC, tile);
        }
        __syncthreads();
        const int left = (int)min(s.end - step, (u32)STEPS);
        write_dBC(p, left, tile, dBC_parts + (u64)step * 2 * p.states);
#pragma unroll
        for (int j = 0; j < PER_THREAD; ++j) {
            const int row = mine.row + j * AT_ONCE;
            if (row >= left) break;
            write(p, mine, row, step + row, now[j], tile, dx, ddelta, dz);
        }
        __syncthreads();
    }
    each_state(p, at, [&](int k, int n, u32 offset) {
        dA[(u64)at.slot * p.channels * p.states + offset] = da[k][n];
        if (s.index == 0) dinitial[state + offset] = r[k][n];
    }, my_order());
    write_sums(p, at, tile, dDbias);
}
