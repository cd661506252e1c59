"""The authors' configs, as their checkpoints have them, give models as large as their names say."""

import pytest
import torch

from ssm_kit.models import LanguageModel
from ssm_kit.models.families.mamba import mamba_ssm

COMMON = {"vocab_size": 50277, "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True}
MAMBA = COMMON | {"ssm_cfg": {}, "pad_vocab_size_multiple": 8}
MAMBA_2 = COMMON | {"d_intermediate": 0, "ssm_cfg": {"layer": "Mamba2"}, "attn_layer_idx": [], "attn_cfg": {}}
MAMBA_2 |= {"pad_vocab_size_multiple": 16, "tie_embeddings": True}


@pytest.mark.parametrize(
    ("config", "vocabulary", "sizes"),
    [
        (MAMBA, 50280, (130e6, 370e6, 790e6, 1.4e9, 2.8e9)),
        (MAMBA_2, 50288, (130e6, 370e6, 780e6, 1.3e9, 2.7e9)),
    ],
    ids=["mamba", "mamba2"],
)
def test_parameters(config, vocabulary, sizes):
    shapes = ((768, 24), (1024, 48), (1536, 48), (2048, 48), (2560, 64))  # d_model and layers of both series
    for (d_model, layers), size in zip(shapes, sizes, strict=True):
        translated, _ = mamba_ssm(config | {"d_model": d_model, "n_layer": layers}, {})
        with torch.device("meta"):
            model = LanguageModel(translated)
        assert model.embeddings.weight.shape == (vocabulary, d_model)
        assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(size, rel=0.035)
