"""Models on disk: config.json and model.safetensors, never a pickle."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssm_kit.models.config import ModelConfig
from ssm_kit.models.language_model import LanguageModel

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MODEL_TYPE = "ssm_kit"


def save(model: LanguageModel, folder: str | os.PathLike) -> None:
    """Write the model into a folder, made if it is not there: config.json and model.safetensors.

    The config holds the weights' SHA-256, so that `load` notices a file that was cut, changed or exchanged. Each file
    replaces its predecessor in one stroke.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / (WEIGHTS + ".part")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, part)
    plain = {"model_type": MODEL_TYPE, "weights_sha256": sha256(part), "config": model.config.to_dict()}
    os.replace(part, folder / WEIGHTS)
    part = folder / (CONFIG + ".part")
    part.write_text(json.dumps(_spelled(plain), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, folder / CONFIG)


def load(
    folder: str | os.PathLike, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> LanguageModel:
    """The model that `save` wrote.

    Args:
        folder: with config.json and model.safetensors.
        device: None for the CPU.
        dtype: None for the dtypes on disk.

    Raises:
        ValueError: files that are missing, cut, changed since they were written, or that do not fit each other.
    """
    folder = Path(folder)
    plain = read_json(folder / CONFIG)
    if plain.get("model_type") != MODEL_TYPE:
        raise ValueError(f"{folder / CONFIG} must be written by ssm_kit; got model_type {plain.get('model_type')!r}")
    found = sha256(present(folder / WEIGHTS))
    if found != plain.get("weights_sha256"):
        raise ValueError(
            f"{folder / WEIGHTS} must be as it was saved, with SHA-256 {plain.get('weights_sha256')}; got {found}: "
            "it was cut, changed or exchanged"
        )
    return assemble(ModelConfig.from_dict(plain["config"]), read_weights(folder / WEIGHTS), device, dtype)


def assemble(
    config: ModelConfig,
    weights: dict[str, Tensor],
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> LanguageModel:
    """A model of these weights, all of them and no others. Raises ValueError where they do not fit the config."""
    with torch.device("meta"):  # shapes only: the weights come from the file, and need no second place in memory
        model = LanguageModel(config)
    spared = [name for name, weight in model.named_parameters() if hasattr(weight, "_no_weight_decay")]
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(f"weights must fit the config: {error}") from error
    for name in spared:  # the mark does not survive the assignment
        model.get_parameter(name)._no_weight_decay = True  # type: ignore[attr-defined]
    return model.to(device=device, dtype=dtype)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises ValueError for a file that is missing or not whole."""
    try:
        return load_file(present(file))
    except SafetensorError as error:
        raise ValueError(f"{file} must be a whole safetensors file; got one that is cut or damaged: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError for a file that is missing or holds something else."""
    try:
        plain = json.loads(present(file).read_text(encoding="utf-8"), object_hook=_read)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} must be JSON; got one that is cut or damaged: {error}") from error
    if not isinstance(plain, dict):
        raise ValueError(f"{file} must hold a JSON object; got {type(plain).__name__}")
    return plain


def _spelled(value: Any) -> Any:
    """JSON has no infinity: it becomes {"__float__": "Infinity"}, as in transformers' files."""
    if isinstance(value, dict):
        return {name: _spelled(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_spelled(part) for part in value]
    return {"__float__": "Infinity"} if value == math.inf else value


def _read(mapping: dict[str, Any]) -> Any:
    return float(mapping["__float__"]) if mapping.keys() == {"__float__"} else mapping


def present(file: Path) -> Path:
    """The file. Raises ValueError if there is none."""
    if not file.is_file():
        raise ValueError(f"{file} must be there; got no such file")
    return file


def sha256(file: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
