"""What the operators' own backward passes share."""

import functools
from collections.abc import Callable
from typing import Any

import torch


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the backward of an `autograd.Function` or of a custom operator: it refuses to be differentiated itself.

    torch's `once_differentiable` looks at the incoming gradients only. Where those are constants, as after a sum,
    it lets the second derivative through the saved inputs go missing without a word. Here create_graph=True, which
    alone makes backward run with gradients enabled, raises a RuntimeError at once.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                'create_graph=True: this backend has first derivatives only; backend="reference" has all'
            )
        return backward(ctx, *gradients)

    return checked
