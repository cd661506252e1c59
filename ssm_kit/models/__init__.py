"""Language models as data: a pattern says what every block is, one stack runs them all."""

from ssm_kit.models.cache import Cache
from ssm_kit.models.checkpoint import load, save
from ssm_kit.models.config import ModelConfig
from ssm_kit.models.generate import generate, stream
from ssm_kit.models.language_model import LanguageModel
from ssm_kit.models.pretrained import from_transformers, load_pretrained
from ssm_kit.models.sampling import Sampling
from ssm_kit.models.schedule import schedule

__all__ = [
    "Cache",
    "LanguageModel",
    "ModelConfig",
    "Sampling",
    "from_transformers",
    "generate",
    "load",
    "load_pretrained",
    "save",
    "schedule",
    "stream",
]
