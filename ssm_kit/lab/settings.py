"""What a training run depends on besides its model and its task."""

from dataclasses import dataclass

from ssm_kit.lab.tasks.task import require


@dataclass(frozen=True)
class Settings:
    """How to train.

    Args:
        steps: optimizer steps in all.
        batch_size: examples a step, over all processes together.
        learning_rate: its highest value.
        warmup: steps of linear rise.
        final: the last learning rate as a share of the highest.
        weight_decay, beta1, beta2: AdamW's.
        clip: the gradient's largest norm.
        precision: "fp32", or "bf16" for autocast; parameters and optimizer are float32 in both.
        seed: of the data and of random numbers in the model, such as dropout. Not of the model's initial weights:
            those are there before.

    Raises:
        ValueError: a number out of range.
    """

    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup: int = 50
    final: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", "at least 1", self.steps)
        require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        require(self.learning_rate > 0, "learning_rate", "a number > 0", self.learning_rate)
        require(0 <= self.warmup <= self.steps, "warmup", "0 to steps", self.warmup)
        require(0 <= self.final <= 1, "final", "0 to 1", self.final)
        require(self.weight_decay >= 0, "weight_decay", "a number >= 0", self.weight_decay)
        require(0 <= self.beta1 < 1, "beta1", "0 to below 1", self.beta1)
        require(0 <= self.beta2 < 1, "beta2", "0 to below 1", self.beta2)
        require(self.clip > 0, "clip", "a number > 0", self.clip)
        require(self.precision in ("fp32", "bf16"), "precision", '"fp32" or "bf16"', self.precision)
