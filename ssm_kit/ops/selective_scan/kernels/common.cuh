// What the selective-scan kernels share. Compiled by NVRTC, which brings no headers: conversions are written out here.
//
// Constants of a compilation, put in front: T (float, half_t, bfloat_t), Saved (float, bfloat_t), N (states per channel,
// padded to a power of two), NS (states per thread), K (channels per thread), THREADS (per block), STEPS (per tile),
// SPAN (steps between saved states).
__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(bfloat_t v) { return __uint_as_float((u32)v.bits << 16); }
__device__ __forceinline__ float to_float(half_t v) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v.bits)); return f; }
__device__ __forceinline__ void round_to(float f, float& v) { v = f; }
__device__ __forceinline__ void round_to(float f, half_t& v) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v.bits) : "f"(f)); }
__device__ __forceinline__ void round_to(float f, bfloat_t& v) {  // to nearest even; before sm_80 no instruction does it
    const u32 bits = __float_as_uint(f);
    v.bits = (u16)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

// Numbers packed in words: one float, or two halves, the even one below.
__device__ __forceinline__ float unpack(const u32* words, int j, float) { return __uint_as_float(words[j]); }
__device__ __forceinline__ float unpack(const u32* words, int j, bfloat_t) {
    return __uint_as_float(j % 2 ? words[j / 2] & 0xffff0000u : words[j / 2] << 16);
}
__device__ __forceinline__ float unpack(const u32* words, int j, half_t) {
    return to_float(half_t{(u16)(j % 2 ? words[j / 2] >> 16 : words[j / 2])});
}
__device__ __forceinline__ void pack(float even, float odd, u32* words, int j, float) {
    words[j] = __float_as_uint(even), words[j + 1] = __float_as_uint(odd);
}
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void pack(float even, float odd, u32* words, int j, bfloat_t) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words[j / 2]) : "f"(odd), "f"(even));
}
__device__ __forceinline__ void pack(float even, float odd, u32* words, int j, half_t) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(words[j / 2]) : "f"(odd), "f"(even));
}
#else
template <class Half> __device__ __forceinline__ void pack(float even, float odd, u32* words, int j, Half) {
    Half low, high;
    round_to(even, low), round_to(odd, high);
    words[j / 2] = low.bits | (u32)high.bits << 16;
}
#endif

__device__ __forceinline__ float ex2(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
__device__ __forceinline__ float rcp(float x) { float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

constexpr bool PRECISE = sizeof(T) == 4;
constexpr int LANES = N / NS;                  // neighbouring threads that share a channel
constexpr int CHANNELS = THREADS / LANES * K;  // channels per block
constexpr int AT_ONCE = THREADS * 8 / CHANNELS;  // steps that all threads cover, elementwise, 8 channels each
constexpr int PER_THREAD = STEPS > AT_ONCE ? STEPS / AT_ONCE : 1;
constexpr int INPUTS_AT_ONCE = THREADS / N, INPUTS = STEPS > INPUTS_AT_ONCE ? STEPS / INPUTS_AT_ONCE : 1;  // of B and C
static_assert(LANES <= 32 && CHANNELS % 8 == 0 && SPAN % STEPS == 0 && THREADS % 32 == 0, "tile does not divide");

// ln(1 + e^x) and its slope. In half precision log1p is a polynomial (relative error 6e-5): the special-function unit,
// which every decay needs, is the bottleneck. In float it must be exact.
struct Curve { float value, slope; };
__device__ __forceinline__ Curve softplus(float x) {
    const float e = ex2(-fabsf(x) * LOG2E);
    float p;
    if (PRECISE) p = log1pf(e);
    else p = e * fmaf(fmaf(fmaf(fmaf(.04134620f, e, -.15742499f), e, .30629954f), e, -.49697754f), e, .99994326f);
    return {fmaxf(x, 0.f) + p, (x > 0.f ? 1.f : e) * rcp(1.f + e)};
}
__device__ __forceinline__ Curve step_size(float raw) { return SOFTPLUS ? softplus(raw) : Curve{raw, 1.f}; }
constexpr float NO_STEP = SOFTPLUS ? -1e30f : 0.f;  // makes dt = 0, which leaves the state alone: exp(0 A) = 1

#ifdef TANH
__device__ __forceinline__ float sigmoid(float x) { float t; asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(0.5f * x)); return fmaf(0.5f, t, 0.5f); }
#else
__device__ __forceinline__ float sigmoid(float x) { return rcp(1.f + ex2(-LOG2E * x)); }
#endif

// 8 neighbouring channels of one step, packed as they came: to unpack is to wait for them.
struct alignas(16) Piece { u32 words[2 * sizeof(T)]; };

__device__ __forceinline__ float get(const Piece& piece, int j) { return unpack(piece.words, j, T()); }
__device__ __forceinline__ void put(Piece& piece, int j, float even, float odd) { pack(even, odd, piece.words, j, T()); }

// Channels from `count` on do not exist.
__device__ __forceinline__ Piece load_some(const T* from, int count, float missing) {
    float v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = j < count ? to_float(from[j]) : missing;
    Piece piece;
#pragma unroll
    for (int j = 0; j < 8; j += 2) put(piece, j, v[j], v[j + 1]);
    return piece;
}

__device__ __forceinline__ void store(T* to, const Piece& piece, int count, bool aligned) {
    if (aligned && count >= 8) { *(Piece*)to = piece; return; }
#pragma unroll
    for (int j = 0; j < 8; ++j) if (j < count) round_to(get(piece, j), to[j]);
}

// The part of a sequence that a block works on. Sequences lie end to end along one axis of B * L steps (or are packed
// so, told apart by `bounds`); each is cut into segments, which different blocks scan at the same time.
struct Segment {
    i64 row, index, count;  // which sequence, which segment of how many
    i64 begin, end;         // steps
    i64 saved;              // where its saved states begin
};

__device__ Segment find_segment(i64 slot, i64 length, i64 segment, const i64* bounds, i64 rows) {
    i64 row = 0, begin, end, first, saved;
    if (bounds) {  // sequence r owns the slots from bounds[r] / segment + r on, which are enough for it
        for (i64 high = rows; high - row > 1;) {
            i64 middle = (row + high) / 2;
            if (bounds[middle] / segment + middle <= slot) row = middle; else high = middle;
        }
        begin = bounds[row], end = bounds[row + 1];
        first = begin / segment + row, saved = begin / SPAN + row;
    } else {
        i64 per_row = (length + segment - 1) / segment;
        row = slot / per_row, first = row * per_row;
        begin = row * length, end = begin + length;
        saved = row * ((length + SPAN - 1) / SPAN);
    }
    i64 index = slot - first, count = (end - begin + segment - 1) / segment, start = begin + index * segment;
    return {row, index, count, start, min(start + segment, end), saved + index * (segment / SPAN)};
}

// Sum v[0..COUNT) over GROUP lanes that differ in the bits GROUP * STRIDE - STRIDE of the lane: afterwards lane i of
// them holds the sums of v[i * COUNT / GROUP ...] in v[0 ...]. Every exchange halves what is left.
template <int COUNT, int GROUP, int STRIDE> __device__ __forceinline__ void reduce(float* v, int lane) {
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

// ---- the problem and a block's place in it ---------------------------------------------------------------------------

struct Problem {
    const T *x, *delta, *z, *B, *C;               // rows of channels, or of groups x states; z may be null
    i64 x_row, delta_row, z_row, B_row, C_row;    // from one step to the next, in elements
    const float *A, *D, *bias;                    // (D, N), (D), (D); D and bias may be null
    const i64* bounds;                            // of packed sequences, or null
    i64 length, rows, channels, groups, states, segment;
    bool aligned;
};
#define PROBLEM                                                                                                        \
    const T *x_, const T *delta_, const T *z_, const T *B_, const T *C_, i64 x_row_, i64 delta_row_, i64 z_row_,       \
        i64 B_row_, i64 C_row_, const float *A_, const float *D_, const float *bias_, const i64 *bounds_, i64 length_, \
        i64 rows_, i64 channels_, i64 groups_, i64 states_, i64 segment_, i64 aligned_
#define THE_PROBLEM                                                                                                    \
    {x_, delta_, z_, B_, C_, x_row_, delta_row_, z_row_, B_row_, C_row_, A_, D_, bias_, bounds_, length_, rows_,       \
     channels_, groups_, states_, segment_, aligned_ != 0}

struct Place {
    i64 slot, group, channel, blocks;  // segment slot; the first of the block's channels; channel blocks per slot
    int width;                         // how many of them exist
};

__device__ __forceinline__ Place find_place(const Problem& p) {
    i64 per_group = p.channels / p.groups, blocks = (per_group + CHANNELS - 1) / CHANNELS;
    i64 block = blockIdx.x % (blocks * p.groups), group = block / blocks, inside = block % blocks * CHANNELS;
    i64 left = per_group - inside;
    return {(i64)blockIdx.x / (blocks * p.groups), group, group * per_group + inside, blocks * p.groups,
            left < CHANNELS ? (int)left : CHANNELS};
}


// Do something with each of a thread's states that exists: act(k, n, offset in an array (D, N)). Its n-th state is
// n ^ order of its share.
template <class Act> __device__ __forceinline__ void each_state(const Problem& p, const Place& at, Act act, int order = 0) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K;
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
        for (int n = 0; n < NS; ++n)
            if (channel + k < at.width && lane * NS + (n ^ order) < p.states)
                act(k, n, (at.channel + channel + k) * p.states + lane * NS + (n ^ order));
}

// The state that the other segments hand over. `ends` (slots, D, N) is what each makes from nothing, `sums` (slots, D)
// its total of step sizes; from the nearest to the row's edge they lie at slot, slot + stride, ... (count of them).
__device__ __forceinline__ void carry_over(const Problem& p, const Place& at, const float (&a)[K][NS], const float* ends,
                                           const float* sums, i64 slot, i64 count, i64 stride, float (&state)[K][NS],
                                           int order = 0) {
    for (i64 i = count - 1; i >= 0; --i) {
        const i64 from = (slot + i * stride) * p.channels;
        each_state(p, at, [&](int k, int n, i64 offset) {
            float sum = sums[from + offset / p.states];
            state[k][n] = fmaf(ex2(a[k][n] * sum), state[k][n], ends[from * p.states + offset]);
        }, order);
    }
}

// ---- tiles in shared memory ------------------------------------------------------------------------------------------

// (dt, dt x) pairs, two channels to 16 bytes. Within a line of 128 bytes these units are permuted so that neither the
// elementwise threads (4 units each) nor the scanning ones (one each) meet in a bank.
__device__ __forceinline__ int swizzle(int unit) { return (unit & ~7) | ((unit ^ (unit >> 3)) & 7); }

struct Steps {
    float4 pair[STEPS][CHANNELS / 2];
    // The K channels of a scanning thread: first[k] and second[k].
    __device__ __forceinline__ void read(int t, int channel, float (&first)[K], float (&second)[K]) const {
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

__device__ __forceinline__ void read_states(const float* row, float (&v)[NS]) {
    if constexpr (NS % 4 == 0) {
#pragma unroll
        for (int n = 0; n < NS; n += 4) *(float4*)(v + n) = *(const float4*)(row + n);
    } else {
#pragma unroll
        for (int n = 0; n < NS; ++n) v[n] = row[n];
    }
}

// A thread's place in the elementwise work: 8 channels, from `channel` on in the block (`count` of them exist), at the
// steps row, row + AT_ONCE, ...; and one state of B and C, at the steps input_row, input_row + INPUTS_AT_ONCE, ...
struct Mine {
    int channel = threadIdx.x * 8 % CHANNELS, row = threadIdx.x * 8 / CHANNELS, count;
    int state = threadIdx.x % N, input_row = threadIdx.x / N;
    __device__ __forceinline__ explicit Mine(const Place& at) : count(at.width - channel) {}
};

__device__ __forceinline__ void load_weights(const Problem& p, const Place& at, const Mine& mine, float (&skip)[8], float (&bias)[8]) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        skip[j] = p.D && j < mine.count ? p.D[at.channel + mine.channel + j] : 0.f;
        bias[j] = p.bias && j < mine.count ? p.bias[at.channel + mine.channel + j] : 0.f;
    }
}

// A tensor from a thread's first element on.
struct Column {
    const T* from;
    i64 row;
    __device__ __forceinline__ Column(const T* tensor, i64 row, i64 step, i64 offset) : from(tensor + step * row + offset), row(row) {}
    __device__ __forceinline__ Piece whole(i64 step) const { return *(const Piece*)(from + step * row); }
    __device__ __forceinline__ Piece some(i64 step, int count, float missing = 0.f) const { return load_some(from + step * row, count, missing); }
    __device__ __forceinline__ void advance() { from += STEPS * row; }
};

// ---- states kept for the backward pass: (spans, D, N), N padded ------------------------------------------------------

// Half precision keeps them as bfloat: they start a span of SPAN steps only, so its rounding does not add up.
struct alignas(sizeof(Saved) * NS) Share { Saved v[NS]; };

__device__ __forceinline__ Share* share_of(const Problem& p, const Place& at, i64 span, int k, Saved* saved) {
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES * K + k;
    return channel < at.width ? (Share*)(saved + ((span * p.channels + at.channel + channel) * N + lane * NS)) : 0;
}

__device__ __forceinline__ void save_states(const Problem& p, const Place& at, i64 span, const float (&h)[K][NS], Saved* saved) {
#pragma unroll
    for (int k = 0; k < K; ++k)
        if (Share* to = share_of(p, at, span, k, saved)) {
            Share share;
#pragma unroll
            for (int n = 0; n < NS; ++n) round_to(h[k][n], share.v[n]);
            *to = share;
        }
}

__device__ __forceinline__ void load_states(const Problem& p, const Place& at, i64 span, Saved* saved, float (&h)[K][NS]) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
        Share* from = share_of(p, at, span, k, saved);
#pragma unroll
        for (int n = 0; n < NS; ++n) h[k][n] = from ? to_float(from->v[n]) : 0.f;
    }
}

// `reduce` leaves `share` sums on each of `group` lanes, from index `first` on.
__device__ constexpr int share(int count, int group) { return count > group ? count / group : 1; }
__device__ constexpr int first(int count, int group, int lane) {
    return count > group ? lane * (count / group) : lane / (group / count);
}
