"""What a sequence costs and what it holds, against its length, for a stack of attention and Mamba-2 layers."""

from dataclasses import asdict
from typing import Any

import ipywidgets as W
import numpy as np
import traitlets as T

from ssm_kit import colours, cost

from .base import Figure, ParameterError, choice, slider

SSM = {
    "ssm_head_dim": cost.SSM_HEAD_DIM,
    "ssm_state": cost.SSM_STATE,
    "ssm_chunk": cost.SSM_CHUNK,
}
LENGTHS = 2 ** np.arange(8, 21)
TICKS = {256: "256", 2048: "2k", 32768: "32k", 131072: "128k", 1048576: "1M"}


class CostVsLength(Figure):
    """Work of one causal pass over `length` tokens by kind, and bytes held for them.

    Parameters:
        length: tokens, a power of two where the slider sets it.
        preset: a key of `ssm_kit.cost.PRESETS`.
        attention_layers: how many layers attend; the others are Mamba-2. All of them unless given.
    """

    bundle = "cost_vs_length.js"
    heights = (581, 813)

    length = slider(1024, 256, 2**20, 1, "Length L", base=2)
    preset = choice("8B", tuple(cost.PRESETS))
    attention_layers = slider(0, 0, max(stack.layers for stack in cost.PRESETS.values()), 1, "Attention layers")
    _presets = T.Dict({name: {**asdict(stack), **SSM} for name, stack in cost.PRESETS.items()}).tag(sync=True)
    _layers = T.Int().tag(sync=True)  # of the preset shown: the upper end of the slider

    @property
    def stack(self) -> cost.Stack:
        """The stack that is shown."""
        return cost.PRESETS[self.preset]

    @T.default("_layers")
    def _all_layers(self) -> int:
        return self.stack.layers

    @T.default("attention_layers")
    def _all_attend(self) -> int:
        return self.stack.layers

    @T.validate("attention_layers")
    def _at_most_all(self, proposal: dict[str, Any]) -> int:
        if proposal["value"] > self.stack.layers:
            raise ParameterError(
                f"{type(self).__name__}: attention_layers must be at most {self.stack.layers} "
                f"with preset {self.preset!r}, got {proposal['value']}"
            )
        return proposal["value"]

    @T.observe("preset")
    def _keep_share(self, _: Any) -> None:
        """Another preset has another number of layers: the same share of them attends (src/views does the same)."""
        share, self._layers = self.attention_layers / self._layers, self.stack.layers
        self.attention_layers = int(share * self._layers + 0.5)

    def _slider(self, name: str, trait: Any) -> W.Widget:
        row = super()._slider(name, trait)
        if name == "attention_layers":
            row.max = self._layers
            row._max_link = W.jslink((self, "_layers"), (row, "max"))
        return row

    def draw(self, canvas: Any) -> None:
        """Both panels at the chosen length; dashed: the same term if every layer were of that kind."""
        panels = work_axes, memory_axes = canvas.subplots(1, 2)
        for axes in panels:
            axes.set(xscale="log", yscale="log", xlabel="length L (tokens)", xlim=(LENGTHS[0], LENGTHS[-1]))
            axes.axvline(self.length, color=colours.QUIET, ls=(0, (4, 3)), lw=1.2)
        self._draw_work(work_axes)
        self._draw_memory(memory_axes)
        for axes in panels:
            axes.set_xticks(list(TICKS), list(TICKS.values()))
            axes.minorticks_off()
            axes.legend(fontsize=8, loc="upper left", frameon=True, framealpha=1, edgecolor="none")

    def _draw_work(self, axes: Any) -> None:
        stack, attention = self.stack, self.attention_layers
        here, pure, ssm = ([stack.sequence_work(a, int(n)) for n in LENGTHS] for a in (attention, stack.layers, 0))
        axes.plot(LENGTHS, [w.total for w in here], color=colours.INK, lw=5, alpha=0.28, label="total")
        axes.plot(LENGTHS, [w.linear for w in here], color=colours.QUIET, label="linear layers")
        terms = (("score", "attention scores", colours.ATTENTION, pure), ("scan", "SSM scan", colours.STATE, ssm))
        for kind, label, colour, alone in terms:
            _term(axes, [getattr(w, kind) for w in here], [getattr(w, kind) for w in alone], colour, label)
        work = stack.sequence_work(attention, self.length)
        axes.set(ylabel="FLOPs of one causal pass over L tokens", ylim=(1e9, 1e19))
        axes.set_title(f"Scores: {100 * work.score / work.total:.1f} % at L = {self.length:,}")

    def _draw_memory(self, axes: Any) -> None:
        stack, attention = self.stack, self.attention_layers
        here, pure, ssm = ([stack.memory(a, int(n)) for n in LENGTHS] for a in (attention, stack.layers, 0))
        _term(axes, [m.cache for m in here], [m.cache for m in pure], colours.ATTENTION, "KV cache")
        _term(axes, [m.state for m in here], [m.state for m in ssm], colours.STATE, "state")
        ticks = {2**20: "1 MiB", 2**25: "32 MiB", 2**30: "1 GiB", 2**35: "32 GiB", 2**40: "1 TiB"}
        axes.set(ylabel="bytes held, bf16", ylim=(2**18, 2**40))
        axes.set_yticks(list(ticks), list(ticks.values()))
        held = stack.memory(attention, self.length)
        axes.set_title(f"Cache {held.cache / 2**20:,.0f} MiB, state {held.state / 2**20:,.0f} MiB")


def _term(axes: Any, here: list[int], alone: list[int], colour: str, label: str) -> None:
    """One term of this stack, and dashed what it would be if every layer were of its kind."""
    axes.plot(LENGTHS, alone, color=colour, lw=1.2, ls="--", label=None if any(here) else label)
    if any(here):
        axes.plot(LENGTHS, here, color=colour, label=label)
