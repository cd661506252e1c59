// Gradients, from the last tile of a segment to its first. A tile starts from its saved state.

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
    read8(&tile.y[row][mine.inside], y), read8(&tile.weights.skip[mine.inside], skip);
    read8(&tile.weights.bias[mine.inside], bias);
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
    tile.weights.stage(p, at);
#pragma unroll
    for (int j = 0; j < 4; ++j) tile.sums[j][threadIdx.x] = make_float4(0.f, 0.f, 0.f, 0.f);
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
