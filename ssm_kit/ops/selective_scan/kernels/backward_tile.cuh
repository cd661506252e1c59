// A tile of the backward pass in shared memory, and how it comes there.
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
    Weights weights;
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
        read8(&tile.weights.bias[mine.inside], bias);
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
