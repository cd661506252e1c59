"""The short causal convolution in Triton: what `cuda.py` launches.

A program owns BLOCK channels of one row of the batch and walks through a segment of its time. Strides in time are
constants, so that the rows' addresses are one pointer and constant offsets.
"""

import triton
import triton.language as tl


@triton.jit
def _place(segments, channels: tl.constexpr, BLOCK: tl.constexpr):
    """What this program owns: a row of the batch, a segment of its time, channels, and which of those exist."""
    blocks: tl.constexpr = (channels + BLOCK - 1) // BLOCK
    program = tl.program_id(0)
    columns = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    program = (program // blocks).to(tl.int64)  # offsets count beyond 2^31
    return program // segments, program % segments, columns, columns < channels


@triton.jit
def _sequence(bounds, sequences, batch, length, t):
    """The sequence that step t belongs to, its first step, and the one after its last."""
    low, begin, end = batch, batch * 0, batch * 0 + length
    if bounds is not None:
        high = begin + sequences
        while high - low > 1:
            middle = (low + high) // 2
            begun = tl.load(bounds + middle) <= t
            low, high = tl.where(begun, middle, low), tl.where(begun, high, middle)
        begin, end = tl.load(bounds + low).to(tl.int64), tl.load(bounds + low + 1).to(tl.int64)
    return low, begin, end


@triton.jit
def _parameters(weight, bias, columns, inside, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """The taps, a vector over channels for each, and the bias."""
    taps = ()
    for k in tl.static_range(WIDTH):
        taps += (tl.load(weight + columns * WIDTH + k, inside, other=0.0).to(tl.float32),)
    offset = tl.zeros([BLOCK], tl.float32)
    if bias is not None:
        offset += tl.load(bias + columns, inside, other=0.0).to(tl.float32)
    return taps, offset


@triton.jit
def _rows(pointer, stride: tl.constexpr, t, length, columns, inside, ROWS: tl.constexpr):
    """Rows t .. t + ROWS - 1, zero beyond the end, all asked for before the first is used."""
    rows = ()
    for r in tl.static_range(ROWS):
        rows += (tl.load(pointer + (t + r) * stride + columns, inside & (t + r < length), other=0.0),)
    return rows


@triton.jit
def _window(
    x, stride: tl.constexpr, initial, sequence, begin, t, channels: tl.constexpr, columns, inside, WIDTH: tl.constexpr
):
    """The WIDTH - 1 inputs before step t of a sequence; those before its first step come from the initial state."""
    window = ()
    for k in tl.static_range(WIDTH - 1):
        s = t - (WIDTH - 1) + k
        row = tl.load(x + s * stride + columns, inside & (s >= begin), other=0.0).to(tl.float32)
        if initial is not None:
            place = (sequence * (WIDTH - 1) + s - begin + WIDTH - 1) * channels + columns
            row += tl.load(initial + place, inside & (s < begin), other=0.0).to(tl.float32)
        window += (row,)
    return window


@triton.jit
def _next_sequence(
    window, x, stride: tl.constexpr, initial, bounds, sequence, begin, end, t, length, channels: tl.constexpr,
    columns, inside, WIDTH: tl.constexpr,
):  # fmt: skip
    """Where a packed sequence begins at step t, what came before is the initial state of that sequence."""
    fresh = (t == end) & (t < length)
    sequence += fresh.to(tl.int64)
    begin = tl.where(fresh, t, begin)
    end = tl.load(bounds + sequence + 1, fresh, other=end).to(tl.int64)
    before = _window(x, stride, initial, sequence, begin, t, channels, columns, inside & fresh, WIDTH)
    renewed = ()
    for k in tl.static_range(WIDTH - 1):
        renewed += (tl.where(fresh, before[k], window[k]),)
    return renewed, sequence, begin, end


@triton.jit
def _weigh(window, taps, offset, WIDTH: tl.constexpr):
    u = offset
    for k in tl.static_range(WIDTH):
        u += taps[k] * window[k]
    return u


@triton.jit(do_not_specialize=["length", "sequences"])
def forward(
    x, weight, bias, initial, bounds, y, length, sequences, segments, segment_length, x_batch, channels: tl.constexpr,
    x_time: tl.constexpr, SILU: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    batch, segment, columns, inside = _place(segments, channels, BLOCK)
    x += batch * x_batch
    y += batch * length * channels
    first = segment * segment_length
    sequence, begin, end = _sequence(bounds, sequences, batch, length, first)
    taps, offset = _parameters(weight, bias, columns, inside, WIDTH, BLOCK)
    window = _window(x, x_time, initial, sequence, begin, first, channels, columns, inside, WIDTH)
    for t in range(first, min(first + segment_length, length), ROWS):
        rows = _rows(x, x_time, t, length, columns, inside, ROWS)
        for r in tl.static_range(ROWS):
            if bounds is not None:
                window, sequence, begin, end = _next_sequence(
                    window, x, x_time, initial, bounds, sequence, begin, end, t + r, length, channels, columns, inside,
                    WIDTH,
                )  # fmt: skip
            window += (rows[r].to(tl.float32),)
            u = _weigh(window, taps, offset, WIDTH)
            if SILU:
                u = u / (1 + tl.exp(-u))
            tl.store(y + (t + r) * channels + columns, u, inside & (t + r < length))
            window = window[1:]


@triton.jit(do_not_specialize=["length", "sequences"])
def backward(
    x, weight, bias, initial, bounds, dy, dx, partials, length, sequences, segments, segment_length, x_batch, dy_batch,
    channels: tl.constexpr, x_time: tl.constexpr, dy_time: tl.constexpr, SILU: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of x in this segment, and this segment's part of the gradients of the taps and the bias.

    At step t the gradient du of the sum u_t reaches x_{t-W+1} .. x_t: their sums wait in `sums`, and the oldest is
    then complete. So the walk goes W - 1 steps beyond the segment.
    """
    batch, segment, columns, inside = _place(segments, channels, BLOCK)
    x += batch * x_batch
    dy += batch * dy_batch
    dx += batch * length * channels
    first = segment * segment_length
    last = min(first + segment_length, length.to(tl.int64))
    sequence, begin, end = _sequence(bounds, sequences, batch, length, first)
    taps, offset = _parameters(weight, bias, columns, inside, WIDTH, BLOCK)
    window = _window(x, x_time, initial, sequence, begin, first, channels, columns, inside, WIDTH)
    zero = tl.zeros([BLOCK], tl.float32)
    sums, dtaps, doffset = (zero,) * (WIDTH - 1), (zero,) * WIDTH, zero
    for t in range(first, last + WIDTH - 1, ROWS):
        rows = _rows(x, x_time, t, length, columns, inside, ROWS)
        drows = _rows(dy, dy_time, t, length, columns, inside, ROWS)
        for r in tl.static_range(ROWS):
            if bounds is not None:
                window, sequence, begin, end = _next_sequence(
                    window, x, x_time, initial, bounds, sequence, begin, end, t + r, length, channels, columns, inside,
                    WIDTH,
                )  # fmt: skip
            window += (rows[r].to(tl.float32),)
            du = drows[r].to(tl.float32)
            if SILU:
                u = _weigh(window, taps, offset, WIDTH)
                gate = 1 / (1 + tl.exp(-u))
                du *= gate * (1 + u * (1 - gate))
            own = tl.where(t + r < last, du, 0.0)
            doffset += own
            sums += (zero,)
            grown, summed = (), ()
            for k in tl.static_range(WIDTH):
                reached = du
                if bounds is not None:
                    reached = tl.where(t + r - (WIDTH - 1) + k >= begin, du, 0.0)
                grown += (dtaps[k] + own * window[k],)
                summed += (sums[k] + reached * taps[k],)
            dtaps = grown
            s = t + r - (WIDTH - 1)
            tl.store(dx + s * channels + columns, summed[0], inside & (s >= first) & (s < last))
            window, sums = window[1:], summed[1:]
    partials += (batch * segments + segment) * (WIDTH + 1) * channels + columns
    for k in tl.static_range(WIDTH):
        tl.store(partials + k * channels, dtaps[k], inside)
    tl.store(partials + WIDTH * channels, doffset, inside)


@triton.jit
def step(
    x, weight, bias, state, y, following, channels: tl.constexpr, SILU: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    batch, _, columns, inside = _place(1, channels, BLOCK)
    taps, offset = _parameters(weight, bias, columns, inside, WIDTH, BLOCK)
    state += batch * (WIDTH - 1) * channels + columns
    following += batch * (WIDTH - 1) * channels + columns
    new = tl.load(x + batch * channels + columns, inside).to(tl.float32)
    u = offset + taps[WIDTH - 1] * new
    for k in tl.static_range(WIDTH - 1):
        row = tl.load(state + k * channels, inside).to(tl.float32)
        u += taps[k] * row
        if k > 0:
            tl.store(following + (k - 1) * channels, row, inside)
    if WIDTH > 1:
        tl.store(following + (WIDTH - 2) * channels, new, inside)
    if SILU:
        u = u / (1 + tl.exp(-u))
    tl.store(y + batch * channels + columns, u, inside)
