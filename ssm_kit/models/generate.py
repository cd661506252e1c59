"""Text from a model: the prompt once as a sequence, then one step per token."""

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor

from ssm_kit.models.language_model import LanguageModel
from ssm_kit.models.sampling import Sampling


def generate(
    model: LanguageModel,
    ids: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """The prompts and what follows them.

    Args:
        model: the language model.
        ids: (B, L) prompts of one length.
        max_new_tokens: at most so many tokens are added, at least 1.
        temperature, top_k, top_p, generator: see `Sampling`; by default the likeliest token is taken.
        stop: token ids that end a row. A row that has ended repeats its stop token until all rows have ended.
        progress: show a progress bar.

    Returns:
        ids (B, L + n), n <= max_new_tokens, int64.

    Raises:
        ValueError: an argument out of its range, ids that the model refuses.
    """
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": generator}
    new = list(stream(model, ids, max_new_tokens, stop=stop, progress=progress, **options))
    return torch.cat([ids.to(torch.int64), torch.stack(new, dim=1)], dim=1)


def stream(
    model: LanguageModel,
    ids: Tensor,
    max_new_tokens: int,
    *,
    stop: Collection[int] = (),
    progress: bool = False,
    **sampling: Any,
) -> Iterator[Tensor]:
    """The new tokens as they come: an iterator of ids (B,). Arguments and errors are those of `generate`."""
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be a whole number >= 1; got {max_new_tokens!r}")
    outside = [token for token in stop if not (isinstance(token, int) and 0 <= token < model.config.vocab_size)]
    if outside:
        raise ValueError(f"stop must hold token ids from 0 to {model.config.vocab_size - 1}; got {outside}")
    tokens = _tokens(model, ids, Sampling(**sampling), max_new_tokens, tuple(stop))
    return _with_bar(tokens, max_new_tokens) if progress else tokens


@torch.no_grad()
def _tokens(
    model: LanguageModel, ids: Tensor, sampling: Sampling, max_new_tokens: int, stop: tuple[int, ...]
) -> Iterator[Tensor]:
    ends = torch.tensor(stop, dtype=torch.int64, device=ids.device)
    x, cache = model.hidden(ids)
    logits = model.head(x[:, -1])  # the head over the whole prompt would be its largest tensor, and is not needed
    token = sampling.choose(logits)
    yield token
    for _ in range(max_new_tokens - 1):
        ended = torch.isin(token, ends)
        if stop and ended.all():
            return
        logits, cache = model.step(token, cache)
        token = torch.where(ended, token, sampling.choose(logits))
        yield token


def _with_bar(tokens: Iterator[Tensor], total: int) -> Iterator[Tensor]:
    from tqdm.auto import tqdm  # here, because it looks for a notebook when it is imported

    with tqdm(total=total, desc="generate", unit="token") as bar:
        for token in tokens:
            yield token
            bar.update()
