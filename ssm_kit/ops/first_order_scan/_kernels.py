"""The first-order scan in Triton: what `cuda.py` launches.

A program owns BLOCK channels of one sequence and walks through a segment of its time, in the order of the run,
i = 0 .. L - 1, whichever way that goes (STEP is 1, or -1 from the end), in tiles of ROWS steps.

A thread holds VECTOR neighbouring channels and, with BLOCK = 32 VECTOR and one warp, all ROWS steps of them: then
`tl.associative_scan` over a tile's steps is a plain loop in registers, one multiply-add a number. Strides in time are
constants to the compiler, so that the addresses of a tile are one pointer and constant offsets.
"""

import triton
import triton.language as tl


@triton.jit
def _place(segments, channels: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr):
    """What this program owns: a sequence, a segment of its time, channels, and which of those exist."""
    blocks: tl.constexpr = (channels + BLOCK - 1) // BLOCK
    program = tl.program_id(0)
    # Threads may be given VECTOR channels at most, or they would hold too few steps of theirs.
    columns = tl.max_contiguous((program % blocks) * BLOCK + tl.arange(0, BLOCK), VECTOR)
    program = (program // blocks).to(tl.int64)  # offsets count beyond 2^31
    return program // segments, program % segments, columns, columns < channels


@triton.jit
def _first_step(pointer, sequence, batch_stride, time_stride: tl.constexpr, length, STEP: tl.constexpr):
    """Where the run begins: at the last step in time if STEP is -1."""
    pointer += sequence * batch_stride
    if STEP < 0:
        pointer += (length.to(tl.int64) - 1) * time_stride
    return pointer


@triton.jit
def _load(first, stride: tl.constexpr, i, end, columns, inside, neutral, SHIFT: tl.constexpr, ROWS: tl.constexpr):
    """Steps i - SHIFT .. i - SHIFT + ROWS - 1 as a tile (ROWS, BLOCK); `neutral` where they are not in 0 .. end - 1."""
    rows = tl.arange(0, ROWS)
    exists = rows < end - i + SHIFT
    if SHIFT > 0:
        exists &= rows >= SHIFT - i
    tile = rows[:, None] * stride + columns[None, :]
    return tl.load(first + (i - SHIFT) * stride + tile, exists[:, None] & inside[None, :], other=neutral)


@triton.jit
def _read(
    a, b, states, i, length, columns, inside, a_time: tl.constexpr, b_time: tl.constexpr, channels: tl.constexpr,
    STEP: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Tiles of everything that `scan` reads: decays, inputs and, for the gradient, the states before."""
    SHIFT: tl.constexpr = 0 if states is None else 1
    decays = _load(a, STEP * a_time, i, length - SHIFT, columns, inside, 1.0, SHIFT, ROWS)
    inputs = _load(b, STEP * b_time, i, length, columns, inside, 0.0, 0, ROWS)
    befores = decays
    if states is not None:
        befores = _load(states, STEP * channels, i, length, columns, inside, 0.0, -1, ROWS)
    return decays, inputs, befores


@triton.jit
def _store(first, stride: tl.constexpr, i, end, columns, inside, values, ROWS: tl.constexpr):
    rows = tl.arange(0, ROWS)
    tile = rows[:, None] * stride + columns[None, :]
    tl.store(first + i * stride + tile, values, (rows < end - i)[:, None] & inside[None, :])


@triton.jit
def _after(decay, state, next_decay, next_input):
    """Two spans in a row: their decays multiply, the state that leaves the first decays through the second."""
    return decay * next_decay, next_decay * state + next_input


@triton.jit
def _run(state, decays, inputs, ROWS: tl.constexpr):
    """All states of a tile, the last, and the product of its decays. The state before it goes in by its first step."""
    rows = tl.arange(0, ROWS)[:, None]
    inputs = tl.where(rows == 0, decays * state[None, :] + inputs, inputs)
    products, states = tl.associative_scan((decays, inputs), 0, _after)
    last = tl.sum(tl.where(rows == ROWS - 1, states, 0.0), 0)
    return states, last, tl.sum(tl.where(rows == ROWS - 1, products, 0.0), 0)


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
    VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The decay over each segment but the last, and the state at its end from a zero state."""
    sequence, segment, columns, inside = _place(segments - 1, channels, VECTOR, BLOCK)
    a = _first_step(a, sequence, a_batch, a_time, length, STEP)
    b = _first_step(b, sequence, b_batch, b_time, length, STEP)
    decay, state = tl.full([BLOCK], 1.0, tl.float32), tl.zeros([BLOCK], tl.float32)
    for i in range(segment * segment_length, (segment + 1) * segment_length, ROWS):
        decays = _load(a, STEP * a_time, i, length, columns, inside, 1.0, SHIFT, ROWS).to(tl.float32)
        inputs = _load(b, STEP * b_time, i, length, columns, inside, 0.0, 0, ROWS).to(tl.float32)
        _, state, product = _run(state, decays, inputs, ROWS)
        decay *= product
    place = (sequence * (segments - 1) + segment) * channels + columns
    tl.store(products + place, decay, inside)
    tl.store(lasts + place, state, inside)


@triton.jit(do_not_specialize=["length", "segments"])
def scan(
    a, b, initial, products, lasts, h, final, states, states_start, da, length, segments, segment_length,
    a_batch, b_batch, channels: tl.constexpr, a_time: tl.constexpr, b_time: tl.constexpr, STEP: tl.constexpr,
    ROWS: tl.constexpr, AHEAD: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """h_i = a_i h_{i-1} + b_i; or its gradient, another scan, where `states` of the forward run are given.

    The gradient walks the other way. Its input b is h̄, its output h is b̄, and the decay on its way from one step to
    the next is that of the step it leaves (`_read`). Beside it ā = b̄ times the state before, one step further on.
    """
    GRADIENT: tl.constexpr = states is not None
    sequence, segment, columns, inside = _place(segments, channels, VECTOR, BLOCK)
    dense = length.to(tl.int64) * channels
    a = _first_step(a, sequence, a_batch, a_time, length, STEP)
    b = _first_step(b, sequence, b_batch, b_time, length, STEP)
    h = _first_step(h, sequence, dense, channels, length, STEP)
    state = _given_state(initial, sequence, columns, inside, channels, BLOCK)
    if products is not None:
        for s in range(segment):
            place = (sequence * (segments - 1) + s) * channels + columns
            carried = state * tl.load(products + place, inside, other=0.0)
            # A product of growing decays may overflow; a state of zero stays zero all the same.
            state = tl.where(state == 0.0, 0.0, carried) + tl.load(lasts + place, inside, other=0.0)
    if GRADIENT:
        states = _first_step(states, sequence, dense, channels, length, STEP)
        da = _first_step(da, sequence, dense, channels, length, STEP)
        start = _given_state(states_start, sequence, columns, inside, channels, BLOCK)
    first = segment * segment_length
    tiles = ()
    for k in tl.static_range(AHEAD):
        tiles += (_read(a, b, states, first + k * ROWS, length, columns, inside, a_time, b_time, channels, STEP, ROWS),)
    for i in range(first, min(first + segment_length, length), AHEAD * ROWS):
        coming = ()
        for k in tl.static_range(AHEAD):
            now = i + k * ROWS
            then = now + AHEAD * ROWS
            coming += (_read(a, b, states, then, length, columns, inside, a_time, b_time, channels, STEP, ROWS),)
            decays, inputs, befores = tiles[k]
            tile, state, _ = _run(state, decays.to(tl.float32), inputs.to(tl.float32), ROWS)
            if GRADIENT:
                at_start = (tl.arange(0, ROWS) == length - 1 - now)[:, None]
                before = tl.where(at_start, start[None, :], befores.to(tl.float32))
            _store(h, STEP * channels, now, length, columns, inside, tile, ROWS)
            if GRADIENT:
                _store(da, STEP * channels, now, length, columns, inside, tile * before, ROWS)
        tiles = coming
    if segment == segments - 1:
        if GRADIENT:
            leaving = a + (length.to(tl.int64) - 1) * (STEP * a_time) + columns
            state *= tl.load(leaving, inside, other=0.0).to(tl.float32)
        tl.store(final + sequence * channels + columns, state, inside)


@triton.jit
def step(a, b, state, following, size, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    decay, now = tl.load(a + i, i < size).to(tl.float32), tl.load(state + i, i < size).to(tl.float32)
    tl.store(following + i, decay * now + tl.load(b + i, i < size).to(tl.float32), i < size)
