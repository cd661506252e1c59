"""How the public families are spelled here: one function per family, (config, weights) theirs -> ours."""

from ssm_kit.models.families.jamba import jamba
from ssm_kit.models.families.mamba import falcon_mamba, mamba, mamba2
from ssm_kit.models.families.nemotron_h import nemotron_h
from ssm_kit.models.families.qwen3_next import qwen3_next
from ssm_kit.models.families.recurrent_gemma import recurrent_gemma
from ssm_kit.models.families.zamba import zamba

FAMILIES = {
    "mamba": mamba,
    "mamba2": mamba2,
    "falcon_mamba": falcon_mamba,
    "jamba": jamba,
    "zamba": zamba,
    "nemotron_h": nemotron_h,
    "recurrent_gemma": recurrent_gemma,
    "qwen3_next": qwen3_next,
}
"""By the model_type of transformers' configs."""
