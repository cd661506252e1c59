// Tiles in shared memory, sums over lanes, and the states kept for the backward pass.
// (dt, dt x) pairs, two channels to 16 bytes. Within a line of 128 bytes these units are permuted so that neither the
// elementwise threads (4 units each) nor the scanning ones (one each) meet in a bank.
INLINE int swizzle(int unit) { return (unit & ~7) | ((unit ^ (unit >> 3)) & 7); }

struct Steps {
    float4 pair[STEPS][CHANNELS / 2 + 2];  // + 2: threads that write to four steps at once miss each other's banks
    // The K channels of a scanning thread: first[k] and second[k].
    INLINE void read(int t, int channel, float (&first)[K], float (&second)[K]) const {
        if constexpr (K == 1) {
            float2 v = ((const float2*)&pair[t][swizzle(channel / 2)])[channel % 2];
            first[0] = v.x, second[0] = v.y;
        } else {
#pragma unroll
            for (int k = 0; k < K; k += 2) {
                float4 v = pair[t][swizzle((channel + k) / 2)];
                first[k] = v.x, second[k] = v.y, first[k + 1] = v.z, second[k + 1] = v.w;
            }
        }
    }
};

// D and the bias of a block's channels, zeros without them.
struct Weights {
    float skip[CHANNELS], bias[CHANNELS];
    INLINE void stage(const Problem& p, const Place& at) {
        for (int c = threadIdx.x; c < CHANNELS; c += THREADS) {
            skip[c] = p.D && c < at.width ? p.D[at.channel + c] : 0.f;
            bias[c] = p.bias && c < at.width ? p.bias[at.channel + c] : 0.f;
        }
    }
};

INLINE void read8(const float* from, float (&v)[8]) {
    *(float4*)v = *(const float4*)from, *(float4*)(v + 4) = *(const float4*)(from + 4);
}

// A thread's 8 of a weight for every channel, zeros without it.
INLINE void load_weights(const float* weights, const Mine& mine, float (&v)[8]) {
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = weights && j < mine.count ? weights[mine.channel + j] : 0.f;
}

INLINE void read_states(const float* row, float (&v)[NS]) {
    if constexpr (NS % 4 == 0) {
#pragma unroll
        for (int n = 0; n < NS; n += 4) *(float4*)(v + n) = *(const float4*)(row + n);
    } else {
#pragma unroll
        for (int n = 0; n < NS; ++n) v[n] = row[n];
    }
}

// Sum v[0..COUNT) over GROUP lanes that differ in the bits GROUP * STRIDE - STRIDE of the lane: afterwards lane i of
// them holds the sums of v[i * COUNT / GROUP ...] in v[0 ...]. Every exchange halves what is left.
template <int COUNT, int GROUP, int STRIDE> INLINE void reduce(float* v, int lane) {
    if constexpr (GROUP > 1 && COUNT == 1) {
        v[0] += __shfl_xor_sync(~0u, v[0], GROUP / 2 * STRIDE);
        reduce<1, GROUP / 2, STRIDE>(v, lane);
    } else if constexpr (GROUP > 1) {
        bool upper = lane & (GROUP / 2);
#pragma unroll
        for (int i = 0; i < COUNT / 2; ++i) {
            float send = upper ? v[i] : v[i + COUNT / 2], keep = upper ? v[i + COUNT / 2] : v[i];
            v[i] = keep + __shfl_xor_sync(~0u, send, GROUP / 2 * STRIDE);
        }
        reduce<COUNT / 2, GROUP / 2, STRIDE>(v, lane);
    }
}

// `reduce` leaves `share` sums on each of `group` lanes, from index `first` on.
__device__ constexpr int share(int count, int group) { return count > group ? count / group : 1; }
__device__ constexpr int first(int count, int group, int lane) {
    return count > group ? lane * (count / group) : lane / (group / count);
}

// States kept for the backward pass: (spans, D, N), N padded.
// Half precision keeps them as bfloat: they start a span of SPAN steps only, so its rounding does not add up.
struct alignas(sizeof(Saved) * NS) Share { u32 words[sizeof(Saved) * NS / 4]; };

INLINE Share* share_of(const Problem& p, const Place& at, u32 span, int k, Saved* saved) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K + k;
    return channel < at.width ? (Share*)(saved + (((u64)span * p.channels + at.channel + channel) * N + lane * NS)) : 0;
}

INLINE void save_states(const Problem& p, const Place& at, u32 span, const float (&h)[K][NS], Saved* saved) {
#pragma unroll
    for (int k = 0; k < K; ++k)
        if (Share* to = share_of(p, at, span, k, saved)) {
            Share share;
#pragma unroll
            for (int n = 0; n < NS; n += 2) pack(h[k][n], h[k][n + 1], share.words, n, Saved());
            *to = share;
        }
}
