"""Language models as data: a pattern says what every block is, one stack runs them all."""

from ssm_kit.models.config import ModelConfig
from ssm_kit.models.schedule import schedule

__all__ = ["ModelConfig", "schedule"]
