"""Triton kernels of SSD's gradients that see one chunk at a time, all chunks at once; `_forward.walk` goes first."""

import triton
import triton.language as tl

from ssm_kit.ops.ssd._tiles import MASKED, chunk_at, decays_onward, exp2, put, tile, unit_of


@triton.jit
def scaled(
    source, target, units, bounds, sequence_of, length, stride,
    N: tl.constexpr, BLOCK_N: tl.constexpr, Q: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """B or C in float16, (L, G, N), and the unit of each chunk, (slots, G); grid (slots, G)."""
    slot, group, groups = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    at, n = tl.arange(0, Q), tl.arange(0, BLOCK_N)
    start, left = chunk_at(slot, bounds, sequence_of, length, Q, PACKED)
    values = tile(source, start, stride, group * N, at, n, left, N, MASKED)
    unit = unit_of(values)
    tl.store(units + slot * groups + group, unit)
    put(target, values * (1.0 / unit), start, groups * N, group * N, at, n, left, N, MASKED)


@triton.jit
def across(
    x, C, dy, rest, steps, totals, states, dstates, C_units, units, dunits, bounds, sequence_of, dB, dC, dsince,
    dpassed, length, tokens, heads, per_group, stride_x, stride_C, stride_dy,
    P: tl.constexpr, N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, Q: tl.constexpr,
    SLICES: tl.constexpr, PACKED: tl.constexpr, MODE: tl.constexpr, STORED: tl.constexpr, PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """What passes through the states at a chunk's bounds, backward: y_i reads since_i C_i · h, u_j writes until_j B_j.

    One program has one chunk, COLUMNS of the N columns, and some heads of a group, one after another; it keeps the sums
    over those heads that dB and dC are, (parts, L, G, N). Grid (slots × tiles of columns, groups, parts of a group).
    Per slice and tile of columns: dsince (slots, slices, tiles, Q), the gradient of log since; dpassed (slots, slices,
    tiles), that of the log decay across the chunk. `rest`, units, dunits: as `_forward.walk` has and leaves them;
    C: as `scaled` leaves it.
    """
    TILES: tl.constexpr = BLOCK_N // COLUMNS
    slot, group, part = (tl.program_id(0) // TILES).to(tl.int64), tl.program_id(1), tl.program_id(2)
    which = tl.program_id(0) % TILES
    column = which * COLUMNS
    at, n, row = tl.arange(0, Q), tl.arange(0, COLUMNS), tl.arange(0, BLOCK_P)
    start, left = chunk_at(slot, bounds, sequence_of, length, Q, PACKED)
    C_tile = tile(C, start, stride_C, group * N + column, at, n, left, N - column, MODE)
    C_unit = 1.0 if C_units is None else tl.load(C_units + slot * tl.num_programs(1) + group)
    dB_sum = tl.zeros((Q, COLUMNS), tl.float32)
    dC_sum = tl.zeros((Q, COLUMNS), tl.float32)
    of_group = per_group * SLICES
    per_part = tl.cdiv(of_group, tl.num_programs(2))
    low = group * of_group + part * per_part
    for slice_ in tl.range(low, tl.minimum(low + per_part, (group + 1) * of_group), num_stages=STAGES):
        head = slice_ // SLICES
        offset = slice_ % SLICES * BLOCK_P
        x_tile = tile(x, start, stride_x, head * P + offset, at, row, left, P - offset, MODE)
        dy_tile = tile(dy, start, stride_dy, head * P + offset, at, row, left, P - offset, MODE)
        stored = slot * (heads * SLICES) + slice_
        h = tile(states, stored * BLOCK_P, BLOCK_N, column, row, n, BLOCK_P, COLUMNS, STORED)
        dh = tile(dstates, stored * BLOCK_P, BLOCK_N, column, row, n, BLOCK_P, COLUMNS, STORED)
        known = (slot * heads + head) * Q
        h_unit, u_unit = units_at(units, stored, left)
        dh_unit, read_unit = units_at(dunits, stored, left)
        total, since = tl.load(totals + known + Q - 1), tl.load(totals + known + at)
        u = x_tile * (exp2(total - since) * tl.load(steps + known + at) * (1.0 / u_unit))[:, None]
        read = dy_tile.to(tl.float32)
        if rest is not None:
            read += tile(rest, start, stride_dy, head * P + offset, at, row, left, P - offset, MODE)
        since = exp2(since)
        dB_sum += tl.dot(u.to(dh.dtype), dh, input_precision=PRECISION) * (u_unit * dh_unit)
        reading = (read * (since * (1.0 / read_unit))[:, None]).to(h.dtype)
        dC_sum += tl.dot(reading, h, input_precision=PRECISION) * (read_unit * h_unit)
        recalled = tl.dot(C_tile, tl.trans(h), input_precision=PRECISION)
        recalled_by = tl.sum(recalled * read, 1) * (C_unit * h_unit) * since
        tl.store(dsince + (stored * TILES + which) * Q + at, recalled_by)
        crossing = exp2(total) * (tl.sum(h.to(tl.float32) * dh.to(tl.float32)) * h_unit * dh_unit)
        tl.store(dpassed + stored * TILES + which, crossing)
    inside = (at < left)[:, None] & (n < N - column)[None, :]
    groups = tl.num_programs(1)
    places = ((part * tokens + start) * groups + group) * N + column + at[:, None] * (groups * N) + n[None, :]
    tl.store(dB + places, dB_sum, mask=inside)
    tl.store(dC + places, dC_sum, mask=inside)


@triton.jit
def units_at(units, stored, left):
    """The units of a chunk's state and of what the chunk adds to it; 1 in float32, which has none, and in no chunk."""
    if units is None:
        state, added = 1.0, 1.0
    else:
        state = tl.load(units + stored * 2, mask=left > 0, other=1.0)
        added = tl.load(units + stored * 2 + 1, mask=left > 0, other=1.0)
    return state, added


@triton.jit
def inside(
    x, B, B_scaled, C, D, dy, rest, steps, totals, dstates, B_units, dunits, bounds, sequence_of, dx, dB, dC, dD, logs,
    length, tokens, heads, per_group, stride_x, stride_B, stride_C, stride_dy,
    P: tl.constexpr, N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, Q: tl.constexpr,
    SLICES: tl.constexpr, SKIP: tl.constexpr, PACKED: tl.constexpr, MODE: tl.constexpr, STORED: tl.constexpr,
    PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """What passes from step to step inside a chunk, backward, and with it all of dx; after `across`.

    Programs and sums as in `across`, to whose dB and dC the parts inside the chunk are added; B_scaled: as `scaled`
    leaves B. Square tiles are [j, i], step j writes and step i reads: so they enter products as they are. In `logs`,
    see `Logs`, what `finish` sums. dD for one D a row (SKIP = P): (slots, H, P).
    """
    slot, group, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    at, n, row = tl.arange(0, Q), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_P)
    start, left = chunk_at(slot, bounds, sequence_of, length, Q, PACKED)
    B_tile = tile(B, start, stride_B, group * N, at, n, left, N, MODE)
    C_tile = tile(C, start, stride_C, group * N, at, n, left, N, MODE)
    scores = tl.dot(B_tile, tl.trans(C_tile), input_precision=PRECISION)
    B_scaled_tile = tile(B_scaled, start, tl.num_programs(1) * N, group * N, at, n, left, N, MODE)
    B_unit = 1.0 if B_units is None else tl.load(B_units + slot * tl.num_programs(1) + group)
    dscores = tl.zeros((Q, Q), tl.float32)
    of_group = per_group * SLICES
    per_part = tl.cdiv(of_group, tl.num_programs(2))
    low = group * of_group + part * per_part
    for slice_ in tl.range(low, tl.minimum(low + per_part, (group + 1) * of_group), num_stages=STAGES):
        head = slice_ // SLICES
        offset = slice_ % SLICES * BLOCK_P
        x_tile = tile(x, start, stride_x, head * P + offset, at, row, left, P - offset, MODE)
        dy_tile = tile(dy, start, stride_dy, head * P + offset, at, row, left, P - offset, MODE)
        stored = slot * (heads * SLICES) + slice_
        dh = tile(dstates, stored * BLOCK_P, BLOCK_N, 0, row, n, BLOCK_P, BLOCK_N, STORED)
        known = (slot * heads + head) * Q
        step, since, total = tl.load(steps + known + at), tl.load(totals + known + at), tl.load(totals + known + Q - 1)
        du = tl.dot(B_scaled_tile, tl.trans(dh), input_precision=PRECISION)
        du *= (exp2(total - since) * (B_unit * units_at(dunits, stored, left)[0]))[:, None]
        until = tl.sum(x_tile * du, 1) * step
        met = tl.dot(x_tile, tl.trans(dy_tile), input_precision=PRECISION)
        if rest is not None:
            rest_tile = tile(rest, start, stride_dy, head * P + offset, at, row, left, P - offset, MODE)
            met = tl.dot(x_tile, tl.trans(rest_tile), met)
        decay = decays_onward(since, at)
        dmix = met * decay * step[:, None]
        du = tl.dot((scores * decay).to(dy_tile.dtype), dy_tile, du, input_precision=PRECISION)
        dscores += dmix
        written = tl.sum(x_tile * du, 1)
        # Without the diagonal, which no decay has: it would leave its rounding errors.
        crossing = tl.where(at[:, None] < at[None, :], dmix * scores, 0.0).to(totals.dtype.element_ty)
        crossing = tl.sum(crossing, 0) - tl.sum(crossing, 1)
        skip = tl.sum(tl.where(at[:, None] == at[None, :], met, 0.0), 1)  # x · dy of each step
        keep(logs + stored * Q * 4, written, until, crossing, skip, at)
        du *= step[:, None]
        if SKIP == 1:
            du += dy_tile * tl.load(D + head).to(tl.float32)
        elif SKIP > 1:
            p = offset + row
            tl.store(dD + (slot * heads + head) * P + p, tl.sum(x_tile.to(tl.float32) * dy_tile, 0), mask=p < P)
            du += dy_tile * tl.load(D + head * P + p, mask=p < P, other=0.0).to(tl.float32)[None, :]
        put(dx, du, start, heads * P, head * P + offset, at, row, left, P - offset, MODE)
    # Read again: kept through the loop, they would take the shared memory that a second program needs.
    B_tile = tile(B, start, stride_B, group * N, at, n, left, N, MODE)
    C_tile = tile(C, start, stride_C, group * N, at, n, left, N, MODE)
    place = (part * tokens + start) * tl.num_programs(1) + group
    dscores = dscores.to(B_tile.dtype)
    add_shared(dB, dC, dscores, B_tile, C_tile, place, tl.num_programs(1), left, N, Q, BLOCK_N, PRECISION)


@triton.jit
def keep(logs, written, until, crossing, skip, at):
    """Store four numbers of each step, side by side: one exchange between threads instead of four."""
    wide = logs.dtype.element_ty
    pairs = tl.join(tl.join(written.to(wide), until.to(wide)), tl.join(crossing, skip.to(wide)))  # (Q, 2, 2)
    two = tl.arange(0, 2)
    tl.store(logs + at[:, None, None] * 4 + two[None, :, None] * 2 + two[None, None, :], pairs)


@triton.jit
def add_shared(
    dB, dC, dscores, B_tile, C_tile, place, groups, left, N: tl.constexpr, Q: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add what comes through the scores C_i · B_j, which the heads of a group share, to this part's dB and dC."""
    at, n = tl.arange(0, Q), tl.arange(0, BLOCK_N)
    given = (at < left)[:, None] & (n < N)[None, :]
    places = place * N + at[:, None] * (groups * N) + n[None, :]
    dB_sum = tl.load(dB + places, mask=given, other=0.0)
    tl.store(dB + places, tl.dot(dscores, C_tile, dB_sum, input_precision=PRECISION), mask=given)
    dC_sum = tl.load(dC + places, mask=given, other=0.0)
    tl.store(dC + places, tl.dot(tl.trans(dscores), B_tile, dC_sum, input_precision=PRECISION), mask=given)


@triton.jit
def finish(
    A, steps, dsince, dpassed, logs, bounds, sequence_of, ddelta, dA, dD, length, heads,
    Q: tl.constexpr, SLICES: tl.constexpr, TILES: tl.constexpr, HEADS: tl.constexpr, SOFTPLUS: tl.constexpr,
    PACKED: tl.constexpr,
):  # fmt: skip
    """Gradients of delta (L, H) and, chunk by chunk, of A and of one D a head (slots, H); grid (slots, H / HEADS).

    A step's decay is crossed by all that is read at or after it and by all that was written before it: sums only.
    """
    slot, at = tl.program_id(0).to(tl.int64), tl.arange(0, Q)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    start, left = chunk_at(slot, bounds, sequence_of, length, Q, PACKED)
    given = head < heads
    inside = given[None, :] & (at < left)[:, None]
    line = slot * heads + head
    later = tl.zeros((Q, HEADS), logs.dtype.element_ty)
    before, written, skip = later, later, later
    passed = tl.zeros((HEADS,), tl.float32)
    for index in range(SLICES):
        places = logs + ((line * SLICES + index)[None, :] * Q + at[:, None]) * 4
        written += tl.load(places, mask=inside, other=0.0)
        later += tl.load(places + 1, mask=inside, other=0.0)
        before += tl.load(places + 2, mask=inside, other=0.0)
        skip += tl.load(places + 3, mask=inside, other=0.0)
    for index in range(SLICES * TILES):
        place = line * (SLICES * TILES) + index
        later += tl.load(dsince + place[None, :] * Q + at[:, None], mask=inside, other=0.0)
        passed += tl.load(dpassed + place, mask=given & (left > 0), other=0.0)
    dlog = tl.cumsum(later, 0, reverse=True) + tl.cumsum(before, 0) - before + passed[None, :]
    step = tl.load(steps + line[None, :] * Q + at[:, None], mask=inside, other=0.0)
    dstep = (written + tl.load(A + head, mask=given, other=0.0).to(tl.float32)[None, :] * dlog).to(tl.float32)
    if SOFTPLUS:  # its derivative is 1 - e^-Δ
        series = step * (1.0 - step * (0.5 - step * (1.0 / 6.0 - step * (1.0 / 24.0))))
        dstep *= tl.where(step < 0.03, series, 1.0 - tl.exp(-step))
    tl.store(ddelta + (start + at)[:, None] * heads + head[None, :], dstep, mask=inside)
    tl.store(dA + line, tl.sum(step * dlog, 0).to(tl.float32), mask=given & (left > 0))
    if dD is not None:
        tl.store(dD + line, tl.sum(skip, 0).to(tl.float32), mask=given)


@triton.jit
def gate(dy, z, ungated, dungated, rest, dz, size, BLOCK: tl.constexpr):
    """y = u SiLU(z), backward: du = dy SiLU(z), dz = dy u σ(z) (1 + z (1 - σ(z))). rest: what du loses by rounding."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    d = tl.load(dy + at, mask=inside).to(tl.float32)
    gate = tl.load(z + at, mask=inside).to(tl.float32)
    u = tl.load(ungated + at, mask=inside).to(tl.float32)
    sigma = 1.0 / (1.0 + tl.exp(-gate))
    gated = d * gate * sigma
    rounded = gated.to(dungated.dtype.element_ty)
    tl.store(dungated + at, rounded, mask=inside)
    if rest is not None:
        tl.store(rest + at, (gated - rounded).to(rest.dtype.element_ty), mask=inside)
    tl.store(dz + at, (d * u * sigma * (1.0 + gate * (1.0 - sigma))).to(dz.dtype.element_ty), mask=inside)
