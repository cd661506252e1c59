"""One colour for each kind of model, the same in all plots and as in the live figures: attention's, the state's."""

from collections.abc import Iterable

from cycler import Cycler, cycler

from ssm_kit import colours

COLOURS = {
    "attention": colours.ATTENTION,
    "attention, MHA": colours.ATTENTION,
    "sliding window": colours.INPUT,
    "attention, GQA": colours.INPUT,
    "Mamba": colours.BILINEAR,
    "Mamba-2": colours.STATE,
    "Gated DeltaNet": colours.MAMBA,
    "hybrid": colours.QUIET,
}


def cycle(models: Iterable[str]) -> Cycler:
    """For `Axes.set_prop_cycle`: the colours of these models, in their order. Raises KeyError for another model."""
    return cycler(color=[COLOURS[model] for model in models])
