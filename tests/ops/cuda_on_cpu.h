// CUDA C++ on a CPU, one block after the other, so that kernels can be tested without a GPU.
//
// Every thread of a block is a fiber. It runs until it has to wait for others, at a barrier or a shuffle, and hands on
// to the next one. That finds wrong indices and sums, threads that wait for each other forever, and barriers that are
// missing where one thread's work shows in another's; of races it finds no more than these.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __CUDA_ARCH__ 750  // what later architectures have in single instructions is written out

using std::max;
using std::min;

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct Index { unsigned x; };
static Index threadIdx, blockIdx;

namespace fibers {
constexpr int MOST = 1024, STACK = 1 << 16;
struct Barrier {
    int members = 0, waiting = 0, generation = 0;
    void open_if_all_are_here() { if (waiting == members) waiting = 0, ++generation; }
};
static Barrier block, warps[MOST / 32];
static ucontext_t scheduler, contexts[MOST];
static bool finished[MOST];
static std::unique_ptr<char[]> stacks;
static std::function<void()> kernel;
alignas(16) static char slots[MOST][16];

static void arrive(Barrier& barrier) {
    const int generation = barrier.generation;
    ++barrier.waiting, barrier.open_if_all_are_here();
    while (barrier.generation == generation) swapcontext(&contexts[threadIdx.x], &scheduler);
}

static void run() {
    kernel();
    finished[threadIdx.x] = true;
    for (Barrier* barrier : {&block, &warps[threadIdx.x / 32]}) --barrier->members, barrier->open_if_all_are_here();
}

static void run_block(int threads) {
    block = {threads};
    for (int w = 0; w < threads / 32; ++w) warps[w] = {32};
    for (int t = 0; t < threads; ++t) {
        finished[t] = false;
        getcontext(&contexts[t]);
        contexts[t].uc_stack.ss_sp = &stacks[(size_t)t * STACK], contexts[t].uc_stack.ss_size = STACK;
        contexts[t].uc_link = &scheduler;
        makecontext(&contexts[t], run, 0);
    }
    for (int left = threads; left;) {
        left = 0;
        for (threadIdx.x = 0; (int)threadIdx.x < threads; ++threadIdx.x)
            if (!finished[threadIdx.x]) ++left, swapcontext(&scheduler, &contexts[threadIdx.x]);
    }
}
}  // namespace fibers

static void __syncthreads() { fibers::arrive(fibers::block); }
static void __syncwarp() { fibers::arrive(fibers::warps[threadIdx.x / 32]); }

// The value of the thread `from` of this warp.
template <class V> static V read_from(V value, unsigned from) {
    static_assert(sizeof(V) <= 16, "a slot's size");
    memcpy(fibers::slots[threadIdx.x], &value, sizeof(V));
    __syncwarp();
    memcpy(&value, fibers::slots[threadIdx.x / 32 * 32 + from], sizeof(V));
    __syncwarp();
    return value;
}
template <class V> static V __shfl_xor_sync(unsigned, V value, int mask) {
    return read_from(value, threadIdx.x % 32 ^ mask);
}

static float __uint_as_float(unsigned bits) { float f; memcpy(&f, &bits, 4); return f; }
static unsigned __float_as_uint(float f) { unsigned bits; memcpy(&bits, &f, 4); return bits; }
static float from_half(unsigned short bits) { _Float16 h; memcpy(&h, &bits, 2); return (float)h; }
static unsigned short to_half(float f) {
    _Float16 h = (_Float16)f;
    unsigned short bits;
    memcpy(&bits, &h, 2);
    return bits;
}
