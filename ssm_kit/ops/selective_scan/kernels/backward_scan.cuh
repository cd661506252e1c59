// Forth and back through a tile.
//
// With h_t = e_t h_{t-1} + (dt x)_t B_t, e_t = exp(dt_t A), y_t = C_t h_t, and g_t the gradient of h_t:
//     g_t = dy_t C_t + r_t,   r_{t-1} = e_t g_t,   q_t = r_{t-1} h_{t-1}   (the gradient of dt_t A)
//     dC_t = sum over channels of dy_t h_t,   dB_t = sum over channels of (dt x)_t g_t,
//     d(dt x)_t = sum over states of g_t B_t,   d(dt)_t = sum over states of q_t A,   dA = sum over steps of dt_t q_t.
// The states of PART steps at a time are kept in registers together with their decays. So a tile is scanned twice:
// first without outputs, to have the state before each part, then part by part from the last, forth and back.

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
