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


def custom_operator(name: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """`run` as the operator ssm_kit::name, which torch.compile leaves whole; `fake` makes its empty outputs."""
    operator = torch.library.custom_op(f"ssm_kit::{name}", run, mutates_args=(), schema=schema)
    operator.register_fake(fake)
    return operator


def with_gradients(
    forward: Callable[..., Any], backward: Callable[..., Any], operators: tuple[Any, Any],
    save: Callable[..., None], gradients: Callable[..., Any],
) -> Callable[..., Any]:  # fmt: skip
    """A function that runs `forward` and is differentiable once, in eager calls and under torch.compile.

    torch.compile needs the custom operators. A call of one costs the host several times as much as that of an
    `autograd.Function`, so eager calls take such a function, made of the same parts.

    Args:
        forward, backward: what runs.
        operators: the two as custom operators.
        save: (ctx, inputs, output) keeps what the backward pass needs.
        gradients: (backward, ctx, *gradients of the outputs) calls `backward` and returns a gradient for each input.
    """
    operator, backward_operator = operators
    compiled, direct = (
        differentiable_once(functools.partial(gradients, run)) for run in (backward_operator, backward)
    )  # fmt: skip
    operator.register_autograd(compiled, setup_context=save)
    parts = {"forward": forward, "setup_context": save, "backward": direct}
    eager: Any = type("Eager", (torch.autograd.Function,), {name: staticmethod(part) for name, part in parts.items()})

    def run(*arguments: Any) -> Any:
        return operator(*arguments) if torch.compiler.is_compiling() else eager.apply(*arguments)

    return run
