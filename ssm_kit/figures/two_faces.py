"""One state-space model, computed as a recurrence and as a convolution."""

from typing import Any

from ssm_kit.colours import INPUT, STATE

from .base import Figure, counter, slider, toggle

INPUTS = (1.0, 0.6, 0.0, 0.0, -0.8, 0.4, 0.0, 0.9, 0.0, 0.0, 0.0, 0.7, -0.5, 0.0, 1.0, 0.3)


class TwoFaces(Figure):
    """The model h' = a h + x, y = h, on sixteen inputs: a recurrence on the left, a convolution on the right.

    `selection` gives token k the step Δₖ = Δ (0.2 + 2 |xₖ|): a toy of what Mamba learns (its Δ is a softplus of a
    projection). The right side is then a weighted sum with a kernel of its own for every output: no convolution.
    `length` cuts the kernel after that many values.
    """

    bundle = "two_faces.js"
    heights = (787, 801)

    step = counter(len(INPUTS))
    a = slider(-1.0, -3.0, 0.0, 0.05, "Rate a (s⁻¹)")
    delta = slider(0.3, 0.05, 1.0, 0.05, "Step Δ (s)")
    length = slider(len(INPUTS), 1, len(INPUTS), 1, "Kernel length")
    selection = toggle(False)

    def coefficients(self) -> tuple[Any, Any]:
        """Ā and B̄ of every token by zero-order hold, each an array (16,)."""
        import numpy as np

        from ssm_kit.lti import discretize

        delta = self.delta * (0.2 + 2 * np.abs(INPUTS)) if self.selection else np.full(len(INPUTS), self.delta)
        rates = np.full((len(INPUTS), 1), self.a)
        A_bar, B_bar = discretize(rates, np.ones_like(rates), delta)
        return A_bar[:, 0], B_bar[:, 0]

    def weights(self) -> Any:
        """(16, 16): row k holds the weights that output k puts on the inputs, 0 beyond the kernel's length."""
        import numpy as np

        A_bar, B_bar = self.coefficients()
        rows = np.zeros((len(INPUTS), len(INPUTS)))
        for k in range(len(INPUTS)):
            for i in range(max(0, k + 1 - self.length), k + 1):
                rows[k, i] = np.prod(A_bar[i + 1 : k + 1]) * B_bar[i]
        return rows

    def outputs(self) -> tuple[Any, Any]:
        """What the recurrence and the weighted sums give, (16,) each."""
        import numpy as np

        from ssm_kit.lti import recurrence

        one, h, states = np.ones(1), np.zeros(1), []
        for A_bar, B_bar, x in zip(*self.coefficients(), INPUTS, strict=True):
            h = recurrence(one * A_bar, one * B_bar, one, one * x, initial_state=h, return_states=True)[1][0]
            states.append(h[0])
        return np.array(states), self.weights() @ INPUTS

    def draw(self, canvas: Any) -> None:
        """Still picture: inputs, the weights of every output, and both outputs."""
        tokens, weights, (states, sums) = range(len(INPUTS)), self.weights(), self.outputs()
        top, middle, bottom = canvas.subplots(3, 1)
        top.bar(tokens, INPUTS, 0.5, color=INPUT)
        top.set(title="One model, two faces", ylabel="input xₖ")
        for k in tokens if self.selection else tokens[-1:]:
            row = weights[k, max(0, k + 1 - self.length) : k + 1][::-1]
            middle.plot(range(len(row)), row, ".-", color=STATE, alpha=0.5 if self.selection else 1)
        middle.set(xlabel="lag i", xlim=top.get_xlim(), ylim=(0, None))
        middle.set_ylabel("kernel of each output" if self.selection else "kernel Kᵢ")
        bottom.bar(tokens, states, 0.6, color=STATE, alpha=0.45, label="recurrence")
        bottom.plot(tokens, sums, "o", color=STATE, label="weighted sum" if self.selection else "convolution")
        gap = abs(states - sums).max()
        bottom.set(ylabel="output yₖ", xlabel=f"step k; largest difference {gap:.1e}")
        bottom.set_ylim(top=1.5 * max(states))  # room for the legend
        bottom.legend(loc="upper left", ncols=2, fontsize=8)
