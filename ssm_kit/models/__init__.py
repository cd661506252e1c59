"""Language models as data: a pattern says what every block is, one stack runs them all.

blocks = {"M": "Mamba2", "*": {"layer": "Attention", "num_heads": 4}, "-": {"layer": "MLP", "d_ff": 512}}
mixers = schedule(8, attention_fraction=1 / 8, placement="spread")                     # "MMMM*MMM"
config = ModelConfig(vocab_size=256, d_model=128, pattern="-".join(mixers) + "-", blocks=blocks)

model = LanguageModel(config)
logits, cache = model(ids)                       # (B, L) -> (B, L, vocab_size); cache.nbytes
logits, cache = model.step(ids[:, -1], cache)    # one more token per row
text = generate(model, ids, 100, temperature=0.8, top_p=0.95, stop=[0], progress=True)
save(model, "folder")
model = load("folder")

model = load_pretrained("state-spaces/mamba-130m-hf")
"""

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
