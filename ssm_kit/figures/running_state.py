"""A text read into one fixed state, beside a cache that keeps every token; and the bytes of both in real models."""

import re
from typing import Any

from ssm_kit.colours import ATTENTION, QUIET, STATE

from .base import Figure, choice, counter, slider, text

WIDTH = 8  # numbers in the toy state
SENTENCE = (
    "A river never keeps a single drop of rain and yet the river carries something of every rain that fell on "
    "the hills above it so far"
)
MOST = 2**20  # tokens that the figure can show
# Layers, channels and state size per channel (mamba_ssm; the config of Falcon Mamba; Mamba-2: 80 heads of 64).
STATES = {"mamba-1": (64, 5120, 16), "falcon-mamba": (64, 8192, 16), "mamba-2": (64, 5120, 128)}
NAMES = {"mamba-1": "Mamba 2.8B", "falcon-mamba": "Falcon Mamba 7B", "mamba-2": "Mamba-2 2.7B"}


def words(text: str) -> list[str]:
    """The tokens of a text: what stands between white space."""
    return [word for word in re.split(r"[ \t\r\n]+", text) if word]


def vector(word: str) -> list[float]:
    """The fixed vector of a token: eight numbers in [-1, 1), the same wherever the word stands."""
    seed = 0
    for letter in word:
        seed = _mix(seed ^ ord(letter))
    return [_mix(seed + i + 1) / 2**31 - 1 for i in range(WIDTH)]


def _mix(bits: int) -> int:
    """Scramble 32 bits with Knuth's golden-ratio factor, so that similar words get unrelated numbers."""
    bits &= 0xFFFFFFFF
    for _ in range(3):
        bits = (bits ^ (bits >> 15)) * 0x9E3779B1 & 0xFFFFFFFF
    return bits ^ (bits >> 15)


class RunningState(Figure):
    """A toy state h = decay · h + (1 − decay) · v(token) of eight numbers, and the real sizes of states and caches.

    `tokens` is how many have been read: the text begins anew when it ends. The lower half compares, in bytes of
    bfloat16, the state of `model` with the key-value cache of Llama-3-8B after as many tokens. Recurrent models
    also keep the last three inputs of each layer's convolution, 2 to 3 MiB here, which is not counted.
    """

    bundle = "running_state.js"
    heights = (773, 967)

    text = text(SENTENCE)
    decay = slider(0.9, 0.0, 0.99, 0.01, "Decay")
    tokens = counter(MOST)
    model = choice("mamba-2", tuple(STATES))

    def state(self, tokens: int | None = None) -> Any:
        """The toy state after `tokens` tokens (by default the figure's own), an array (8,)."""
        import numpy as np

        from ssm_kit.lti import recurrence

        end = self.tokens if tokens is None else tokens
        if not (read := words(self.text)) or not end:
            return np.zeros(WIDTH)
        start = max(0, end - 4096)  # of older tokens 0.99^4096, 1e-18, is left at most
        vectors = np.array([vector(read[i % len(read)]) for i in range(start, end)])
        one = np.ones((WIDTH, 1))
        return recurrence(self.decay * one, (1 - self.decay) * one, one, vectors)[-1]

    def bytes_held(self) -> tuple[int, int]:
        """(state of `model`, key-value cache of Llama-3-8B after `tokens` tokens) for one sequence, bfloat16."""
        from ssm_kit.cost import PRESETS, kv_cache_bytes, recurrent_state_bytes

        llama = PRESETS["8B"]
        cache = kv_cache_bytes(llama.layers, llama.kv_heads, llama.head_dim, self.tokens)
        return recurrent_state_bytes(*STATES[self.model]), cache

    def draw(self, canvas: Any) -> None:
        """Still picture: the toy state, and the bytes of the real ones against tokens."""
        from ssm_kit.cost import PRESETS, crossover_tokens, kv_cache_bytes

        llama = PRESETS["8B"]
        top, bottom = canvas.subplots(2, 1, height_ratios=[1, 2])
        read = self.tokens or len(words(self.text))  # before the first token there is nothing to draw
        top.bar(range(1, WIDTH + 1), self.state(read), 0.6, color=STATE)
        top.set(title="One running state", xlabel=f"toy state of 8 numbers after {read:,} tokens")
        held, token = self.bytes_held()[0], kv_cache_bytes(llama.layers, llama.kv_heads, llama.head_dim)
        ends, balance = [1, MOST], crossover_tokens(held, token)
        bottom.loglog(ends, [held / 2**20] * 2, color=STATE, lw=3, label=f"state of {NAMES[self.model]}")
        bottom.loglog(ends, [n * token / 2**20 for n in ends], color=ATTENTION, lw=3, label="KV cache of Llama-3-8B")
        bottom.axvline(balance, color=QUIET, ls="--", lw=1)
        bottom.annotate(f" equal at {balance:,.0f} tokens", (balance, 0.2), color=QUIET)
        bottom.set(xlabel="tokens read", ylabel="MiB held (bfloat16)")
        bottom.legend(loc="upper left", fontsize=8)
