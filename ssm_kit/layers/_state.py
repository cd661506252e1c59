"""The one interface of all layers: over a sequence, or one step at a time, with what is remembered handed in and out.

    y, state = layer(x, state=None)                # x, y (B, L, d_model)
    y_t, state = layer.step(x_t, state)            # x_t, y_t (B, d_model)
    state = layer.init_state(batch_size)           # what None stands for

A state is a NamedTuple of tensors, or None for a layer that remembers nothing. The batch is the first axis of every
tensor of it, so that rows can be picked and joined. Nothing is written in place: an old state stays valid, and a
sequence can be continued from it twice. A state keeps the dtypes in which it comes in. It is part of the graph of
gradients: detach it where truncated backpropagation is meant to end.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ssm_kit.layers._check import require_input, require_positive, require_state


class Layer(nn.Module):
    """The base of all layers: it checks, and calls `_advance`, which runs both with and without a time axis.

    A subclass sets `d_model`, and defines `_advance` and, if it remembers something, `init_state`.
    """

    d_model: int

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run over a sequence.

        Args:
            x: (B, L, d_model), real floating, L >= 1.
            state: what the layer remembers of the steps before x; None for nothing.

        Returns:
            y (B, L, d_model) in the dtype of x, and the state after the last step.

        Raises:
            ValueError: x or state of another shape or kind.
        """
        require_input(x, "B L", self.d_model)
        return self._advance(x, self._given(x, state))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Run one step: x (B, d_model) to y (B, d_model), and the next state. Errors are those of a sequence."""
        require_input(x, "B", self.d_model)
        return self._advance(x, self._given(x, state))

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Any:
        """What the layer remembers before the first step.

        Args:
            batch_size: B >= 1.
            device: None for that of the weights.
            dtype: of all floating tensors; None for the weights' dtype, and at least float32 for running sums, which
                lose too much in half precision.

        Raises:
            ValueError: a batch size below 1.
        """
        require_positive(batch_size=batch_size)

    def _given(self, x: Tensor, state: Any) -> Any:
        if state is None:
            return self.init_state(x.shape[0], device=x.device)
        require_state(state, self.init_state(x.shape[0], device="meta"))
        return state

    def _advance(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        raise NotImplementedError


def over_time(operator: Callable, step: Callable, x: Tensor, state: Tensor) -> Callable[..., tuple[Tensor, Tensor]]:
    """The operator with its initial state where x has a time axis, (B, L, d_model), and else its step."""
    if x.ndim == 3:
        return functools.partial(operator, initial_state=state, return_final_state=True)
    return functools.partial(step, state=state)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype for a running sum of numbers of this dtype: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def state_bytes(state: Any) -> int:
    """The bytes of all tensors in a state, or in any nesting of tuples, lists and dicts of states."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, dict):
        state = state.values()
    elif not isinstance(state, (tuple, list)):
        return 0
    return sum(state_bytes(part) for part in state)
