"""One training run of a sweep, a step at a time: on a GPU the step is a CUDA graph on a stream of its own.

The computation is that of `ssm_kit.lab.train`, with the same batches: on a CPU, to the bit. Nothing in `advance` waits
for the GPU, so one thread can keep many lanes going.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ssm_kit.lab import Settings, Task, evaluate
from ssm_kit.lab.optimizer import decayed, learning_rate, parameter_groups
from ssm_kit.lab.training import backward
from ssm_kit.models import LanguageModel, ModelConfig

EAGER_STEPS = 3
"""Steps before the graph: in them kernels are compiled and tuned, and the optimizer makes its state."""


class Lane:
    """A run between two steps.

    Args:
        config, task, settings: as for `train`; the initial weights are drawn with the settings' seed.
        device: "cpu" or "cuda".
    """

    def __init__(self, config: ModelConfig, task: Task, settings: Settings, device: str) -> None:
        self.task, self.settings, self.device = task, settings, torch.device(device)
        torch.manual_seed(settings.seed)
        model = LanguageModel(config)
        decay = decayed(model)
        self.stream = torch.cuda.Stream() if self.device.type == "cuda" else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.step = 0
        with self._on_stream():
            self.model = model.to(self.device)
            self.forward = self._compiled()
            groups = parameter_groups(self.model, decay, settings.weight_decay)
            self.optimizer = self._optimizer(groups)
            self.batch = self._draw()
            self.sums = torch.zeros(3, device=self.device)
            self.history = torch.zeros(settings.steps, 3, device=self.device)

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or under way on the GPU."""
        return self.step == self.settings.steps

    def advance(self) -> None:
        """One step of the optimizer."""
        with self._on_stream():
            for mine, drawn in zip(self.batch, self._draw(), strict=True):
                mine.copy_(drawn)
            self._set_learning_rate()
            if self.stream is not None and self.step == EAGER_STEPS:
                self._capture()
            if self.graph is None:
                self._compute()
            else:
                self.graph.replay()
            self.history[self.step].copy_(self.sums)
        self.step += 1

    def curve(self) -> list[dict[str, float | None]]:
        """Loss and accuracy of every step; a loss that is no number is None."""
        with self._on_stream():
            rows = self.history[: self.step].double().tolist()
        return [
            {"step": i + 1, "loss": loss / count if math.isfinite(loss) else None, "accuracy": hits / count}
            for i, (loss, hits, count) in enumerate(rows)
        ]

    def evaluate(self, task: Task) -> dict[str, float | None]:
        """As `ssm_kit.lab.evaluate`; a loss that is no number is None."""
        with self._on_stream():
            found = evaluate(self.model, task, batch_size=self.settings.batch_size)
        return {name: value if math.isfinite(value) else None for name, value in found.items()}

    def _compute(self) -> None:
        """What the graph repeats: forward, backward, clipping, AdamW, with `batch` as input and `sums` as output."""
        self.optimizer.zero_grad(set_to_none=True)
        count = self.batch.mask.sum()
        loss, hits = backward(self.forward, self.batch, 1 / count, self.settings.precision)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.sums.copy_(torch.stack([loss, hits, count]))

    def _capture(self) -> None:
        # Gradients must be made inside the graph, in its own memory: a later replay then writes them afresh.
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.current_stream().synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self._compute()

    def _compiled(self) -> nn.Module:
        """On a GPU the model with its elementwise work fused: a small model's step is bound by how many kernels it has.

        A worker meets many architectures in one function, more than torch.compile thinks reasonable, and has neighbours
        that compile too.
        """
        if self.stream is None:
            return self.model
        import torch._inductor.config as inductor  # slow, and of no use on a CPU

        torch._dynamo.config.recompile_limit = 1000
        inductor.compile_threads = 1
        return torch.compile(self.model, dynamic=False)

    def _draw(self) -> Any:
        index = min(self.step, self.settings.steps - 1)
        size = self.settings.batch_size
        return self.task.batch(size, seed=self.settings.seed, index=index, device=self.device)

    def _optimizer(self, groups: list[dict]) -> torch.optim.AdamW:
        betas = (self.settings.beta1, self.settings.beta2)
        if self.stream is None:
            return torch.optim.AdamW(groups, betas=betas)
        rate = torch.zeros((), device=self.device)  # one that a graph reads anew at every replay
        return torch.optim.AdamW(groups, lr=rate, betas=betas, capturable=True, fused=True)

    def _set_learning_rate(self) -> None:
        s = self.settings
        rate = learning_rate(self.step, steps=s.steps, warmup=s.warmup, peak=s.learning_rate, final=s.final)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    @contextlib.contextmanager
    def _on_stream(self) -> Iterator[None]:
        with torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext():
            yield
