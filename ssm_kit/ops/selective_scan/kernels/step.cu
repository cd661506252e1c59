// One step for decoding; the sequences stand as the steps of one. A thread takes NS states of one channel through ROWS sequences, whose states it asks for at
// once: the step is as fast as the states come and go. K = 1.
constexpr int ROWS = 4;
static_assert(NS == 4 && K == 1, "a share is one float4");

__device__ __forceinline__ float sum_over_lanes(float v) {
#pragma unroll
    for (int mask = LANES / 2; mask; mask /= 2) v += __shfl_xor_sync(~0u, v, mask);
    return v;
}

// A thread's share of an array (..., N), NS numbers of which `count` exist; in one piece where they are aligned.
__device__ __forceinline__ void read_share(const float* from, int count, bool aligned, float (&v)[NS]) {
    if (aligned && count == NS) { *(float4*)v = *(const float4*)from; return; }
#pragma unroll
    for (int n = 0; n < NS; ++n) if (n < count) v[n] = from[n];
}

__device__ __forceinline__ void write_share(const float (&v)[NS], int count, bool aligned, float* to) {
    if (aligned && count == NS) { *(float4*)to = *(const float4*)v; return; }
#pragma unroll
    for (int n = 0; n < NS; ++n) if (n < count) to[n] = v[n];
}

// y before skip and gate, from a thread's share of one channel; h becomes the next state.
__device__ __forceinline__ float advance(const Problem& p, i64 row, i64 input, int count, float dt, float u,
                                         const float (&a)[NS], float (&h)[NS]) {
    float y = 0.f;
#pragma unroll
    for (int n = 0; n < NS; ++n) {
        if (n >= count) break;
        h[n] = fmaf(ex2(dt * a[n]), h[n], u * to_float(p.B[row * p.B_row + input + n]));
        y = fmaf(to_float(p.C[row * p.C_row + input + n]), h[n], y);
    }
    return y;
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) step(PROBLEM, const float* state, T* y, float* next) {
    const Problem p = THE_PROBLEM;
    const Place at = find_place(p);
    const int lane = threadIdx.x % LANES, inside = threadIdx.x / LANES;
    const int count = inside < at.width ? (int)min(p.states - lane * NS, (i64)NS) : 0;  // states that exist
    const i64 channel = at.channel + (count > 0 ? inside : 0), own = channel * p.states + lane * NS;
    float a[NS] = {}, h[ROWS][NS] = {};
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const i64 row = at.slot * ROWS + r;
        if (row < p.length) read_share(state + row * p.channels * p.states + own, count, p.aligned, h[r]);
    }
    read_share(p.A + own, count, p.aligned, a);
#pragma unroll
    for (int n = 0; n < NS; ++n) a[n] *= LOG2E;
    const float skip = p.D ? p.D[channel] : 0.f, bias = p.bias ? p.bias[channel] : 0.f;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const i64 row = at.slot * ROWS + r;
        if (row >= p.length) break;
        const float x = to_float(p.x[row * p.x_row + channel]);
        const float dt = step_size(to_float(p.delta[row * p.delta_row + channel]) + bias).value;
        const float sum = sum_over_lanes(advance(p, row, at.group * p.states + lane * NS, count, dt, dt * x, a, h[r]));
        float out = fmaf(skip, x, sum);
        if (GATE) {
            const float z = to_float(p.z[row * p.z_row + channel]);
            out *= z * sigmoid(z);
        }
        write_share(h[r], count, p.aligned, next + row * p.channels * p.states + own);
        if (lane == 0 && count > 0) round_to(out, y[row * p.channels + channel]);
    }
}
