// One step for decoding; the sequences stand as the steps of one, and a segment of them is a block's.
//
// A thread takes NS states of one channel through its sequences. It asks for AHEAD of them at once, and for one more
// whenever one is done, so that the memory never waits for arithmetic: the step is as fast as the states come and go.
constexpr int AHEAD = 3;
static_assert(NS == 4 && K == 1, "a share is one float4");

INLINE float sum_over_lanes(float v) {
#pragma unroll
    for (int mask = LANES / 2; mask; mask /= 2) v += __shfl_xor_sync(~0u, v, mask);
    return v;
}

// A thread's share of an array (..., N), NS numbers of which `count` exist; in one piece where they are aligned.
INLINE void read_share(const float* from, int count, bool aligned, float (&v)[NS]) {
    if (aligned && count == NS) { *(float4*)v = *(const float4*)from; return; }
#pragma unroll
    for (int n = 0; n < NS; ++n) if (n < count) v[n] = from[n];
}

INLINE void write_share(const float (&v)[NS], int count, bool aligned, float* to) {
    if (aligned && count == NS) { *(float4*)to = *(const float4*)v; return; }
#pragma unroll
    for (int n = 0; n < NS; ++n) if (n < count) to[n] = v[n];
}

// NS numbers of B or C, packed as they came: to unpack is to wait for them.
struct alignas(4 * sizeof(T)) Inputs { u32 words[sizeof(T)]; };
INLINE Inputs read_inputs(const T* from, int count, bool aligned) {
    if (aligned && count == NS) return *(const Inputs*)from;
    Inputs in;
    float v[NS];
#pragma unroll
    for (int n = 0; n < NS; ++n) v[n] = n < count ? to_float(from[n]) : 0.f;
#pragma unroll
    for (int n = 0; n < NS; n += 2) pack(v[n], v[n + 1], in.words, n, T());
    return in;
}

// What a thread reads of one sequence.
struct alignas(16) Row { float h[NS]; Inputs B, C; T x, delta, z; };

INLINE void read_row(const Problem& p, u32 row, u32 channel, u32 input, u64 own, int count,
                                         const float* state, Row& r) {
    read_share(state + (u64)row * p.channels * p.states + own, count, p.aligned, r.h);
    r.B = read_inputs(at_step(p.B, p.B_row, row, input), count, p.aligned);
    r.C = read_inputs(at_step(p.C, p.C_row, row, input), count, p.aligned);
    r.x = *at_step(p.x, p.x_row, row, channel), r.delta = *at_step(p.delta, p.delta_row, row, channel);
    if (GATE) r.z = *at_step(p.z, p.z_row, row, channel);
}

// y of one channel from all its lanes; h becomes the next state.
INLINE float advance(const float (&a)[NS], float skip, float bias, Row& r) {
    const float x = to_float(r.x), dt = step_size(to_float(r.delta) + bias).value;
    float y = 0.f;
#pragma unroll
    for (int n = 0; n < NS; ++n) {
        r.h[n] = fmaf(ex2(dt * a[n]), r.h[n], dt * x * unpack(r.B.words, n, T()));
        y = fmaf(unpack(r.C.words, n, T()), r.h[n], y);
    }
    y = fmaf(skip, x, sum_over_lanes(y));
    return GATE ? y * to_float(r.z) * sigmoid(to_float(r.z)) : y;
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) step(PROBLEM, const float* state, T* y, float* next) {
    const Problem p = THE_PROBLEM;
    const Place at = find_place(p);
    const int lane = threadIdx.x % LANES, inside = threadIdx.x / LANES;
    const int count = inside < at.width ? min((int)p.states - lane * NS, NS) : 0;  // states that exist
    const u32 channel = at.channel + (count > 0 ? inside : 0);
    const u32 first = at.slot * p.segment, end = min(first + p.segment, p.length);
    const u32 own = channel * p.states + lane * NS, input = at.group * p.states + lane * NS;
    Row rows[AHEAD] = {};
#pragma unroll
    for (int r = 0; r < AHEAD; ++r)
        if (first + r < end) read_row(p, first + r, channel, input, own, count, state, rows[r]);
    alignas(16) float a[NS] = {};
    read_share(p.A + own, count, p.aligned, a);
#pragma unroll
    for (int n = 0; n < NS; ++n) a[n] *= LOG2E;
    const float skip = p.D ? p.D[channel] : 0.f, bias = p.bias ? p.bias[channel] : 0.f;
    for (u32 begin = first; begin < end; begin += AHEAD)
#pragma unroll
        for (int r = 0; r < AHEAD; ++r) {
            const u32 row = begin + r;
            if (row >= end) break;
            const float out = advance(a, skip, bias, rows[r]);
            write_share(rows[r].h, count, p.aligned, next + (u64)row * p.channels * p.states + own);
            if (lane == 0 && count > 0) round_to(out, *at_step(y, p.channels, row, channel));
            if (row + AHEAD < end) read_row(p, row + AHEAD, channel, input, own, count, state, rows[r]);
        }
}
