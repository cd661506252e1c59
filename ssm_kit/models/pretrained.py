"""Models of others: from transformers' objects, and from the public Mamba checkpoints."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssm_kit.models.checkpoint import CONFIG, WEIGHTS, assemble, read_json, read_weights
from ssm_kit.models.families import FAMILIES
from ssm_kit.models.families.mamba import falcon_mamba, mamba, mamba2, mamba_ssm
from ssm_kit.models.language_model import LanguageModel

INDEX = WEIGHTS + ".index.json"
ON_DISK = {"mamba": mamba, "mamba2": mamba2, "falcon_mamba": falcon_mamba}
"""Families whose files hold the weights under the names that the models have in memory."""

CONVERSION = """\
import torch, safetensors.torch
weights = torch.load("pytorch_model.bin", map_location="cpu", weights_only=True)
weights = {name: tensor.contiguous().clone() for name, tensor in weights.items()}
safetensors.torch.save_file(weights, "model.safetensors")
"""


def load_pretrained(
    name: str | os.PathLike,
    *,
    revision: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LanguageModel:
    """A public Mamba, Mamba-2 or Falcon Mamba checkpoint.

    Both layouts are read: transformers' (`state-spaces/mamba-130m-hf`, `tiiuae/falcon-mamba-7b`) and mamba_ssm's
    (`state-spaces/mamba2-130m`), as model.safetensors or in several files with an index. Pickled weights
    (pytorch_model.bin) are refused, because opening a pickle may run what its author put in; the refusal says how to
    convert them.

    Args:
        name: a local folder, or else the name of a repository on the Hugging Face hub, from which config.json and the
            safetensors files are fetched into its usual cache (needs the package huggingface_hub).
        revision: branch, tag or commit on the hub.
        device: None for the CPU.
        dtype: None for the dtypes on disk.

    Raises:
        ValueError: files that are missing, cut or pickled, a config of another family or with settings that the
            layers here do not implement, weights that do not fit it.
    """
    folder = Path(name) if Path(name).is_dir() else _fetch(str(name), revision)
    config = read_json(folder / CONFIG)
    if "d_model" in config and "hidden_size" not in config:
        family = mamba_ssm
    elif config.get("model_type") in ON_DISK:
        family = ON_DISK[config["model_type"]]
    else:
        got = config.get("model_type")
        raise ValueError(f"{folder / CONFIG} must be of a family among {', '.join(ON_DISK)}; got {got!r}")
    return assemble(*family(config, _all_weights(folder)), device, dtype)


def from_transformers(model: Any) -> LanguageModel:
    """A copy of a transformers causal language model that runs on this package's layers and operators.

    Args:
        model: one of Mamba, Mamba-2, Falcon Mamba, Jamba, Zamba, Nemotron-H, RecurrentGemma, Qwen3-Next
            (`MambaForCausalLM` and so on; transformers 5.23).

    Returns:
        The model, with its own copy of the weights in their dtypes, on the CPU.

    Raises:
        ValueError: another family, or a setting that the layers here do not implement.
    """
    family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if family not in FAMILIES:
        raise ValueError(f"model must be of a family among {', '.join(FAMILIES)}; got {family!r}")
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    return assemble(*FAMILIES[family](model.config.to_dict(), weights), None, None)


def _fetch(name: str, revision: str | None) -> Path:
    """The repository's config and safetensors files, and never its pickles, in the hub's cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(f"name must be a folder where huggingface_hub is not installed; got {name!r}") from error
    return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, "*.safetensors", INDEX]))


def _all_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors, or of all files that its index names."""
    if (folder / INDEX).is_file():
        places = read_json(folder / INDEX).get("weight_map")
        if not isinstance(places, dict):
            raise ValueError(f"{folder / INDEX} must hold a weight_map; got {places!r}")
        files = sorted({Path(file).name for file in places.values()})  # names only: nothing outside the folder
        return {name: tensor for file in files for name, tensor in read_weights(folder / file).items()}
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(file.name for suffix in ("bin", "pt", "pth") for file in folder.glob(f"*.{suffix}"))
        raise ValueError(
            f"{folder} must hold {WEIGHTS}; got {', '.join(pickles) or 'no weights'}. Pickled weights are not opened: "
            f"where {WEIGHTS} is not offered, download pytorch_model.bin, run in its folder\n\n{CONVERSION}\n"
            f"and put {WEIGHTS} beside {CONFIG}."
        )
    return read_weights(folder / WEIGHTS)
