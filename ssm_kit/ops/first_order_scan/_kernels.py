"""The first-order scan in Triton: what `cuda.py` launches.

A program owns BLOCK channels of one sequence and walks through a segment of its time, in the order of the run,
i = 0 .. L - 1, whichever way that goes (STEP is 1, or -1 from the end). Strides in time are constants, so that the
rows' addresses are one pointer and constant offsets.
"""

import triton
import triton.language as tl


@triton.jit
def _place(segments, channels: tl.constexpr, BLOCK: tl.constexpr):
    """What this program owns: a sequence, a segment of its time, channels, and which of those exist."""
    blocks: tl.constexpr = (channels + BLOCK - 1) // BLOCK
    program = tl.program_id(0)
    columns = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    program = (program // blocks).to(tl.int64)  # offsets count beyond 2^31
    return program // segments, program % segments, columns, columns < channels


@triton.jit
def _first_row(pointer, columns, sequence, batch_stride, time_stride, length, STEP: tl.constexpr):
    """Where the run begins: the last row in time if STEP is -1."""
    pointer += sequence * batch_stride
    if STEP < 0:
        pointer += (length.to(tl.int64) - 1) * time_stride
    return pointer + columns


@triton.jit
def _rows(first_row, i, stride: tl.constexpr, end, inside, neutral, SHIFT: tl.constexpr, ROWS: tl.constexpr):
    """Rows i - SHIFT .. i - SHIFT + ROWS - 1, `neutral` where not in 0 .. end - 1; all asked for before one is used."""
    rows = ()
    for r in tl.static_range(ROWS):
        exists = inside & (i + r - SHIFT < end)
        if SHIFT > 0:
            exists &= i + r >= SHIFT
        rows += (tl.load(first_row + (i + r - SHIFT) * stride, exists, other=neutral),)
    return rows


@triton.jit
def _group(
    a, b, states, i, a_time: tl.constexpr, b_time: tl.constexpr, channels: tl.constexpr, length, inside,
    STEP: tl.constexpr, SHIFT: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS steps of everything that is read, from step i on."""
    decays = _rows(a, i, STEP * a_time, length - SHIFT, inside, 1.0, SHIFT, ROWS)
    inputs = _rows(b, i, STEP * b_time, length, inside, 0.0, 0, ROWS)
    befores = ()
    if states is not None:
        befores = _rows(states, i, STEP * channels, length, inside, 0.0, -1, ROWS)
    return decays, inputs, befores


@triton.jit
def _given_state(pointer, sequence, columns, inside, channels: tl.constexpr, BLOCK: tl.constexpr):
    """A row of a (B, D) state in float32, zero if there is none."""
    state = tl.zeros([BLOCK], tl.float32)
    if pointer is not None:
        state += tl.load(pointer + sequence * channels + columns, inside, other=0.0).to(tl.float32)
    return state


@triton.jit(do_not_specialize=["length", "segments"])  # a 1 would become a constant, which has no dtype
def summarize(
    a, b, products, lasts, length, segments, segment_length, a_batch, b_batch, channels: tl.constexpr,
    a_time: tl.constexpr, b_time: tl.constexpr, STEP: tl.constexpr, SHIFT: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The decay over each segment but the last, and the state at its end from a zero state."""
    sequence, segment, columns, inside = _place(segments - 1, channels, BLOCK)
    a = _first_row(a, columns, sequence, a_batch, a_time, length, STEP)
    b = _first_row(b, columns, sequence, b_batch, b_time, length, STEP)
    product, state = tl.full([BLOCK], 1.0, tl.float32), tl.zeros([BLOCK], tl.float32)
    for i in range(segment * segment_length, (segment + 1) * segment_length, ROWS):
        decays = _rows(a, i, STEP * a_time, length, inside, 1.0, SHIFT, ROWS)
        inputs = _rows(b, i, STEP * b_time, length, inside, 0.0, 0, ROWS)
        for r in tl.static_range(ROWS):
            decay = decays[r].to(tl.float32)
            state = decay * state + inputs[r].to(tl.float32)
            product *= decay
    place = (sequence * (segments - 1) + segment) * channels + columns
    tl.store(products + place, product, inside)
    tl.store(lasts + place, state, inside)


@triton.jit(do_not_specialize=["length", "segments"])
def scan(
    a, b, initial, products, lasts, h, final, states, states_start, da, length, segments, segment_length,
    a_batch, b_batch, channels: tl.constexpr, a_time: tl.constexpr, b_time: tl.constexpr, STEP: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """h_i = a_i h_{i-1} + b_i; or its gradient, another scan, where `states` of the forward run are given.

    The gradient walks the other way. Its input b is h̄, its output h is b̄, and the decay on its way from one step to
    the next is that of the step it leaves (SHIFT). Beside it ā = b̄ times the state before, one row further on.
    """
    GRADIENT: tl.constexpr = states is not None
    SHIFT: tl.constexpr = 1 if GRADIENT else 0
    sequence, segment, columns, inside = _place(segments, channels, BLOCK)
    dense = length.to(tl.int64) * channels
    a = _first_row(a, columns, sequence, a_batch, a_time, length, STEP)
    b = _first_row(b, columns, sequence, b_batch, b_time, length, STEP)
    h = _first_row(h, columns, sequence, dense, channels, length, STEP)
    state = _given_state(initial, sequence, columns, inside, channels, BLOCK)
    if products is not None:
        for s in range(segment):
            place = (sequence * (segments - 1) + s) * channels + columns
            carried = state * tl.load(products + place, inside, other=0.0)
            # A product of growing decays may overflow; a state of zero stays zero all the same.
            state = tl.where(state == 0.0, 0.0, carried) + tl.load(lasts + place, inside, other=0.0)
    if GRADIENT:
        states = _first_row(states, columns, sequence, dense, channels, length, STEP)
        da = _first_row(da, columns, sequence, dense, channels, length, STEP)
        start = _given_state(states_start, sequence, columns, inside, channels, BLOCK)
    first = segment * segment_length
    if AHEAD:
        decays, inputs, befores = _group(a, b, states, first, a_time, b_time, channels, length, inside, STEP, SHIFT, ROWS)
    for i in range(first, min(first + segment_length, length), ROWS):
        if AHEAD:
            later = _group(a, b, states, i + ROWS, a_time, b_time, channels, length, inside, STEP, SHIFT, ROWS)
        else:
            decays, inputs, befores = _group(a, b, states, i, a_time, b_time, channels, length, inside, STEP, SHIFT, ROWS)
        for r in tl.static_range(ROWS):
            state = decays[r].to(tl.float32) * state + inputs[r].to(tl.float32)
            row = (i + r) * (STEP * channels)
            tl.store(h + row, state, inside & (i + r < length))
            if GRADIENT:
                before = tl.where(i + r + 1 == length, start, befores[r].to(tl.float32))
                tl.store(da + row, state * before, inside & (i + r < length))
        if AHEAD:
            decays, inputs, befores = later
    if segment == segments - 1:
        if GRADIENT:
            (decay,) = _rows(a, length.to(tl.int64), STEP * a_time, length, inside, 1.0, 1, 1)
            state *= decay.to(tl.float32)
        tl.store(final + sequence * channels + columns, state, inside)


@triton.jit
def step(a, b, state, following, size, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    decay, now = tl.load(a + i, i < size).to(tl.float32), tl.load(state + i, i < size).to(tl.float32)
    tl.store(following + i, decay * now + tl.load(b + i, i < size).to(tl.float32), i < size)
