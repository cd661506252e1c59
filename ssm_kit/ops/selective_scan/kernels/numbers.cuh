// Numbers: half precision to float and back, and the functions of one element.
//
// NVRTC brings no headers, so that the conversions are written out. Constants of a compilation, put in front of this
// file: T (float, half_t, bfloat_t), Saved (float, bfloat_t), N (states per channel, padded to a power of two), NS
// (states per thread), K (channels per thread), THREADS (per block), STEPS (per tile), SPAN (steps from
// one saved state to the next).
INLINE float to_float(float v) { return v; }
INLINE float to_float(bfloat_t v) { return __uint_as_float((u32)v.bits << 16); }
INLINE float to_float(half_t v) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v.bits)); return f; }
INLINE void round_to(float f, float& v) { v = f; }
INLINE void round_to(float f, half_t& v) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v.bits) : "f"(f)); }
INLINE void round_to(float f, bfloat_t& v) {  // to nearest even; before sm_80 no instruction does it
    const u32 bits = __float_as_uint(f);
    v.bits = (u16)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

// Numbers packed in words: one float, or two halves, the even one below.
INLINE float unpack(const u32* words, int j, float) { return __uint_as_float(words[j]); }
INLINE float unpack(const u32* words, int j, bfloat_t) {
    return __uint_as_float(j % 2 ? words[j / 2] & 0xffff0000u : words[j / 2] << 16);
}
INLINE float unpack(const u32* words, int j, half_t) {
    return to_float(half_t{(u16)(j % 2 ? words[j / 2] >> 16 : words[j / 2])});
}
INLINE void pack(float even, float odd, u32* words, int j, float) {
    words[j] = __float_as_uint(even), words[j + 1] = __float_as_uint(odd);
}
#if __CUDA_ARCH__ >= 800
INLINE void pack(float even, float odd, u32* words, int j, bfloat_t) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words[j / 2]) : "f"(odd), "f"(even));
}
INLINE void pack(float even, float odd, u32* words, int j, half_t) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(words[j / 2]) : "f"(odd), "f"(even));
}
#else
template <class Half> INLINE void pack(float even, float odd, u32* words, int j, Half) {
    Half low, high;
    round_to(even, low), round_to(odd, high);
    words[j / 2] = low.bits | (u32)high.bits << 16;
}
#endif

INLINE float ex2(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
INLINE float rcp(float x) { float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
// 2^x by multiplications, where the special-function units are what all wait for. Within 2e-7, and exact at 0; x is held
// to what the bits of an exponent can say. Adding 1.5 * 2^23 rounds x to an integer, which is then in the low bits.
INLINE float ex2_multiplied(float x) {
    x = fminf(fmaxf(x, -126.f), 127.f);
    const float rounded = x + 12582912.f, f = x - (rounded - 12582912.f);
    float p = fmaf(fmaf(1.326472690e-3f, f, 9.671512661e-3f), f, 5.550733744e-2f);
    p = fmaf(fmaf(fmaf(p, f, 2.402224208e-1f), f, 6.931469776e-1f), f, 1.f);
    return __uint_as_float(__float_as_uint(p) + (__float_as_uint(rounded) << 23));
}
constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

constexpr bool PRECISE = sizeof(T) == 4;

// Δ of one element, and its slope over the argument.
struct Curve { float value, slope; };

// ln(1 + e^x). Float must be exact. In half precision a polynomial of relative error 6e-5 spares the special-function
// unit, which every decay needs.
INLINE Curve softplus(float x) {
    const float e = ex2(-fabsf(x) * LOG2E);
    float p;
    if (PRECISE) p = log1pf(e);
    else p = e * fmaf(fmaf(fmaf(fmaf(.04134620f, e, -.15742499f), e, .30629954f), e, -.49697754f), e, .99994326f);
    return {fmaxf(x, 0.f) + p, (x > 0.f ? 1.f : e) * rcp(1.f + e)};
}

// The delta of a step that does not exist: it makes Δ = 0, whatever the bias, and so leaves the state: exp(0 A) = 1.
constexpr float NO_STEP = -1e30f;
INLINE Curve step_size(float raw) {
    if (SOFTPLUS) return softplus(raw);
    return {raw < 0.5f * NO_STEP ? 0.f : raw, 1.f};
}

// Sigmoids of two numbers for one reciprocal: 1 / a = b / (a b). Below -40 they stay at e^-40, lest a b overflow.
INLINE void sigmoids(const float (&x)[2], float* y) {
    const float a = 1.f + ex2(-LOG2E * fmaxf(x[0], -40.f)), b = 1.f + ex2(-LOG2E * fmaxf(x[1], -40.f)), r = rcp(a * b);
    y[0] = r * b, y[1] = r * a;
}
INLINE float sigmoid(float x) { return rcp(1.f + ex2(-LOG2E * x)); }


// 8 neighbouring channels of one step, packed as they came: to unpack is to wait for them.
struct alignas(16) Piece { u32 words[2 * sizeof(T)]; };

INLINE float get(const Piece& piece, int j) { return unpack(piece.words, j, T()); }
INLINE void put(Piece& piece, int j, float even, float odd) { pack(even, odd, piece.words, j, T()); }

// Channels from `count` on do not exist.
INLINE Piece load_some(const T* from, int count, float missing) {
    float v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = j < count ? to_float(from[j]) : missing;
    Piece piece;
#pragma unroll
    for (int j = 0; j < 8; j += 2) put(piece, j, v[j], v[j + 1]);
    return piece;
}

INLINE void store(T* to, const Piece& piece, int count, bool aligned) {
    if (aligned && count >= 8) { *(Piece*)to = piece; return; }
#pragma unroll
    for (int j = 0; j < 8; ++j) if (j < count) round_to(get(piece, j), to[j]);
}

// SiLU of a piece.
INLINE void silu(const Piece& z, float (&v)[8]) {
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
        const float pair[2] = {get(z, j), get(z, j + 1)};
        sigmoids(pair, v + j);
        v[j] *= pair[0], v[j + 1] *= pair[1];
    }
}
