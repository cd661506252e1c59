"""The training loop: AdamW, warm-up and cosine, clipping, a progress bar, a log, checkpoints and exact resuming."""

import json
import os
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ssm_kit.lab import checkpoint, parallel, state
from ssm_kit.lab.optimizer import decayed, learning_rate, parameter_groups
from ssm_kit.lab.settings import Settings
from ssm_kit.lab.tasks.task import Batch, Task, require

HELD_OUT = 2**40
"""The stream that `evaluate` draws from: no training seed should be this one."""


def train(
    model: nn.Module,
    task: Task,
    settings: Settings,
    *,
    folder: Path | str | None = None,
    checkpoint_every: int | None = None,
    log_every: int = 10,
    distributed: str | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train a model on a task, in place; continue where the folder's newest checkpoint is, if there is one.

    On a CPU the same arguments and initial weights give the same bits, however often the run was stopped and resumed:
    torch's random numbers are seeded here and kept in the checkpoints, and the batch of a step depends on its number.

    Args:
        model: `model(inputs)` gives logits (B, L, V), alone or first of a tuple, for inputs (B, L) int64. It is
            trained on the device where it is.
        task: where batches come from.
        settings: everything else that the result depends on.
        folder: for `log.jsonl` (one JSON object a step) and checkpoints; None keeps nothing.
        checkpoint_every: steps from one checkpoint to the next; None for one at the end.
        log_every: steps between looks at the loss. On a GPU each makes the host wait.
        distributed: None, "ddp" or "fsdp", see `ssm_kit.lab.parallel`. All processes are given the same model and task;
            each computes its share of every batch, and only the first writes.
        progress: show a bar with loss and accuracy.

    Returns:
        one record a step: step (from 1), loss (mean cross-entropy in nats of what is asked), accuracy (share of it
        that the largest logit names), learning_rate, gradient_norm (before clipping), seconds (since the start,
        without the time of earlier, stopped runs).

    Warns of trainable parameters that the first step's loss does not depend on.

    Raises:
        ValueError: settings that do not fit, a checkpoint of another run, model or task.
        FloatingPointError: the loss is no longer a number.
    """
    require(checkpoint_every is None or checkpoint_every >= 1, "checkpoint_every", "None or >= 1", checkpoint_every)
    require(log_every >= 1, "log_every", "at least 1", log_every)
    require(settings.batch_size >= parallel.world(), "batch_size", "one example a process", settings.batch_size)
    loop = _Loop(model, task, settings, Path(folder) if folder else None, distributed)
    loop.resume()
    bar = tqdm(total=settings.steps, initial=loop.step, disable=not progress or parallel.rank() > 0, unit="step")
    with bar:
        while loop.step < settings.steps:
            loop.advance()
            last = loop.step == settings.steps
            due = last or (checkpoint_every is not None and loop.step % checkpoint_every == 0)
            if due or loop.step % log_every == 0:
                loop.flush(bar)
            if due:
                loop.save()
    return loop.records


def evaluate(
    model: nn.Module, task: Task, *, batches: int = 8, batch_size: int = 64, seed: int = HELD_OUT
) -> dict[str, float]:
    """Loss, accuracy (both as in `train`) and exact (the share of examples without any mistake) on fresh examples.

    The model is put into evaluation mode for it, and back. With "fsdp", all processes must call it.
    """
    device, before = _device(model), model.training
    total, examples = torch.zeros(4, dtype=torch.float64, device=device), 0
    model.eval()
    with torch.no_grad():
        for index in range(batches):
            batch = task.batch(batch_size, seed=seed, index=index, device=device)
            loss, right = loss_and_hits(model, batch)
            exact = (right | ~batch.mask).all(dim=1).sum()
            examples += len(batch.mask)  # a task may draw fewer than it is asked for
            total += torch.stack([loss.double(), right.sum().double(), batch.mask.sum().double(), exact.double()])
    model.train(before)
    loss, hits, count, exact = total.tolist()
    return {"loss": loss / count, "accuracy": hits / count, "exact": exact / examples}


def loss_and_hits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The sum of the cross-entropies of what is asked, (), and where the largest logit names it, (B, L) bool."""
    output = model(batch.inputs)
    logits = output[0] if isinstance(output, tuple) else output
    # An index to ignore, where indexing by the mask would make a GPU wait to learn the result's shape.
    targets = batch.targets.masked_fill(~batch.mask, -100)
    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="sum")
    return loss, logits.detach().argmax(dim=-1) == targets


def backward(model: nn.Module, batch: Batch, scale: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Add the gradients of scale · loss; return the sums of loss and hits, each ()."""
    with torch.autocast(batch.inputs.device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss, right = loss_and_hits(model, batch)
    (loss * scale).backward()
    return loss.detach(), right.sum()


class _Loop:
    """A run between two steps."""

    def __init__(
        self, model: nn.Module, task: Task, settings: Settings, folder: Path | None, distributed: str | None
    ) -> None:
        self.model, self.task, self.settings, self.folder = model, task, settings, folder
        decay = decayed(model)
        self.forward = parallel.distribute(model, distributed)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, decay, settings.weight_decay), betas=(settings.beta1, settings.beta2)
        )
        self.step = 0
        self.records: list[dict[str, float]] = []
        self.pending: list[Tensor] = []
        self.start = time.perf_counter()

    def advance(self) -> None:
        """One step of the optimizer."""
        whole = self.task.batch(
            self.settings.batch_size, seed=self.settings.seed, index=self.step, device=_device(self.model)
        )
        count = whole.mask.sum()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.model.train()
        mine = whole.rows(slice(parallel.rank(), None, parallel.world()))
        # DDP and FSDP average gradients over processes; the mean over all examples is a sum of their shares.
        loss, right = backward(self.forward, mine, parallel.world() / count, self.settings.precision)
        if self.step == 0:
            self._warn_of_idle_parameters()
        norm = parallel.whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip))
        self.optimizer.step()
        self.step += 1
        self.pending.append(torch.stack([loss, right, norm, count]))

    def _warn_of_idle_parameters(self) -> None:
        idle = [name for name, p in self.model.named_parameters() if p.requires_grad and p.grad is None]
        if idle:
            warnings.warn(f"the loss does not depend on {', '.join(idle)}", RuntimeWarning, stacklevel=4)

    def flush(self, bar: tqdm) -> None:
        """Turn pending steps into records; show and write them."""
        values = torch.stack(self.pending).double()
        values[:, :2] = parallel.summed(values[:, :2].contiguous())
        first = self.step - len(self.pending)
        new = [self._record(first + i, *row) for i, row in enumerate(values.tolist())]
        self.pending.clear()
        self.records += new
        bar.update(len(new))
        bar.set_postfix(loss=f"{new[-1]['loss']:.4f}", accuracy=f"{new[-1]['accuracy']:.1%}")
        if self.folder and parallel.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.writelines(json.dumps(record) + "\n" for record in new)
                log.flush()
                os.fsync(log.fileno())  # a checkpoint relies on the log up to its step
        if not all(record["loss"] < float("inf") for record in new):
            raise FloatingPointError(f"the loss is no longer a finite number at step {self.step} or shortly before")

    def save(self) -> None:
        """Write a checkpoint, if there is a folder."""
        if self.folder is None:
            return
        tensors = state.capture(self.model, self.optimizer)
        if parallel.rank() == 0:
            checkpoint.save(self.folder, checkpoint.Checkpoint(self.step, self._identity(), tensors))
        parallel.wait()

    def resume(self) -> None:
        """Load the newest checkpoint, if there is one; otherwise seed the random numbers."""
        torch.manual_seed(self.settings.seed + parallel.rank())
        found = checkpoint.newest(self.folder) if self.folder else None
        if found is not None:
            for entry, mine in self._identity().items():
                require(found.facts[entry] == mine, f"{self.folder}: {entry}", f"as before, {found.facts[entry]}", mine)
            state.restore(self.model, self.optimizer, found.tensors)
            self.step = found.step
        self.records = self._cut_log()

    def _cut_log(self) -> list[dict[str, float]]:
        """The log up to this step: what a stopped run has written after its last checkpoint happens again."""
        path = self.folder / "log.jsonl" if self.folder else None
        if path is None or not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").splitlines()[: self.step]
        parallel.wait()
        if parallel.rank() == 0:
            checkpoint.write_atomically(path, "".join(line + "\n" for line in lines))
        return [json.loads(line) for line in lines]

    def _identity(self) -> dict[str, Any]:
        task = {"name": self.task.name, **asdict(self.task)}
        return {"settings": asdict(self.settings), "task": task}

    def _learning_rate(self, step: int) -> float:
        s = self.settings
        return learning_rate(step, steps=s.steps, warmup=s.warmup, peak=s.learning_rate, final=s.final)

    def _record(self, step: int, loss: float, right: float, norm: float, count: float) -> dict[str, float]:
        return {
            "step": step + 1,
            "loss": loss / count,
            "accuracy": right / count,
            "learning_rate": self._learning_rate(step),
            "gradient_norm": norm,
            "seconds": round(time.perf_counter() - self.start, 3),
        }


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
