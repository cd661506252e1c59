"""Where sequences and chunks lie, for the Triton kernels that work in chunks: `ssd` and the delta rules.

Every chunk of every sequence has a slot of its own in what one kernel hands to the next.
"""

import triton
import triton.language as tl


@triton.jit
def span(bounds, sequence, length, PACKED: tl.constexpr):
    """A sequence's first step, counted over all sequences end to end (64 bits), and its number of steps."""
    if PACKED:
        first = tl.load(bounds + sequence).to(tl.int64)
        steps = (tl.load(bounds + sequence + 1) - first).to(tl.int32)
    else:
        first = sequence.to(tl.int64) * length
        steps = length
    return first, steps


@triton.jit
def slot_of(first, sequence, length, CHUNK: tl.constexpr, PACKED: tl.constexpr):
    """The slot of a sequence's first chunk (64 bits); packed sequences leave at most one slot each unused."""
    return first // CHUNK + sequence if PACKED else sequence.to(tl.int64) * tl.cdiv(length, CHUNK)
