// The problem, and a block's and a thread's place in it.
constexpr int LANES = N / NS;                  // neighbouring threads that share a channel
constexpr int CHANNELS = THREADS / LANES * K;  // channels per block
constexpr int AT_ONCE = THREADS * 8 / CHANNELS;  // steps that all threads cover, elementwise, 8 channels each
constexpr int PER_THREAD = STEPS > AT_ONCE ? STEPS / AT_ONCE : 1;
constexpr int INPUTS_AT_ONCE = THREADS / N, INPUTS = STEPS > INPUTS_AT_ONCE ? STEPS / INPUTS_AT_ONCE : 1;  // of B and C
static_assert(LANES <= 32 && CHANNELS % 8 == 0 && SPAN % STEPS == 0 && THREADS % 32 == 0, "tile does not divide");

// Sequences lie end to end along one axis of B L steps. Steps and strides fit 32 bits, offsets need 64.
struct Problem {
    const T *x, *delta, *z, *B, *C;             // rows of channels, or of groups x states; z may be null
    u32 x_row, delta_row, z_row, B_row, C_row;  // from one step to the next, in elements
    const float *A, *D, *bias;                  // (D, N), (D), (D); D and bias may be null
    const i64* bounds;                          // of packed sequences, or null
    u32 length, rows, channels, groups, states, segment;
    bool aligned;                               // pieces of 8 channels can be read at once
};
#define PROBLEM                                                                                                        \
    const T *x_, const T *delta_, const T *z_, const T *B_, const T *C_, i64 x_row_, i64 delta_row_, i64 z_row_,       \
        i64 B_row_, i64 C_row_, const float *A_, const float *D_, const float *bias_, const i64 *bounds_, i64 length_, \
        i64 rows_, i64 channels_, i64 groups_, i64 states_, i64 segment_, i64 aligned_
#define THE_PROBLEM                                                                                                    \
    {x_, delta_, z_, B_, C_, (u32)x_row_, (u32)delta_row_, (u32)z_row_, (u32)B_row_, (u32)C_row_, A_, D_, bias_,       \
     bounds_, (u32)length_, (u32)rows_, (u32)channels_, (u32)groups_, (u32)states_, (u32)segment_, aligned_ != 0}

// Step t, channel (or state) c of a tensor.
template <class S> INLINE S* at_step(S* tensor, u32 row, u32 t, u32 c) { return tensor + ((u64)t * row + c); }

struct Place {
    u32 slot, group, channel, blocks;  // segment slot; the first of the block's channels; channel blocks per slot
    int width;                         // how many of them exist
};

INLINE Place find_place(const Problem& p) {
    const u32 per_group = p.channels / p.groups, blocks = (per_group + CHANNELS - 1) / CHANNELS;
    const u32 block = blockIdx.x % (blocks * p.groups), group = block / blocks, inside = block % blocks * CHANNELS;
    return {(u32)blockIdx.x / (blocks * p.groups), group, group * per_group + inside, blocks * p.groups,
            (int)min(per_group - inside, (u32)CHANNELS)};
}

// The part of a sequence that a block works on: each sequence is cut into segments, which blocks scan side by side.
struct Segment {
    u32 row, index, count;  // which sequence, which segment of how many
    u32 begin, end;         // steps
    u32 saved;              // where its saved states begin
};

__device__ Segment find_segment(const Problem& p, u32 slot) {
    u32 row = 0, begin, end, first, saved;
    if (p.bounds) {  // sequence r owns the slots from bounds[r] / segment + r on, which are enough for it
        for (u32 high = p.rows; high - row > 1;) {
            const u32 middle = (row + high) / 2;
            if ((u32)p.bounds[middle] / p.segment + middle <= slot) row = middle; else high = middle;
        }
        begin = p.bounds[row], end = p.bounds[row + 1];
        first = begin / p.segment + row, saved = begin / SPAN + row;
    } else {
        const u32 per_row = (p.length + p.segment - 1) / p.segment;
        row = slot / per_row, first = row * per_row;
        begin = row * p.length, end = begin + p.length;
        saved = row * ((p.length + SPAN - 1) / SPAN);
    }
    const u32 index = slot - first, count = (end - begin + p.segment - 1) / p.segment;
    const u32 start = begin + index * p.segment;
    return {row, index, count, start, min(start + p.segment, end), saved + index * (p.segment / SPAN)};
}

// A thread's place in the elementwise work: 8 channels, from `channel` on (`inside` in the block; `count` of them
// exist, none where a tile has no step for the thread), at the steps row, row + AT_ONCE, ...; one state of B and C, at
// input_row, input_row + INPUTS_AT_ONCE, ...
struct Mine {
    int inside = threadIdx.x * 8 % CHANNELS, row = threadIdx.x * 8 / CHANNELS, count;
    int state = threadIdx.x % N, input_row = threadIdx.x / N;
    u32 channel, input;
    INLINE Mine(const Problem& p, const Place& at)
        : count(AT_ONCE <= STEPS || row < STEPS ? at.width - inside : 0), channel(at.channel + inside), input(at.group * p.states + state) {}
};

// Do something with each of a thread's states that exists: act(k, n, offset in an array (D, N)). Its n-th state is
// n ^ order of its share.
template <class Act> INLINE void each_state(const Problem& p, const Place& at, Act act, int order = 0) {
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
INLINE void carry_over(const Problem& p, const Place& at, const float (&a)[K][NS], const float* ends,
                                           const float* sums, u32 slot, u32 count, int stride, float (&state)[K][NS],
                                           int order = 0) {
    for (u32 i = count; i-- > 0;) {
        const u64 from = (u64)(slot + i * stride) * p.channels;
        each_state(p, at, [&](int k, int n, u32 offset) {
            const float sum = sums[from + offset / p.states];
            state[k][n] = fmaf(ex2(a[k][n] * sum), state[k][n], ends[from * p.states + offset]);
        }, order);
    }
}
