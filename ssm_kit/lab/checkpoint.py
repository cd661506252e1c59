"""Checkpoints that survive a crash: written aside and renamed, checked when read, the one before always kept.

A checkpoint is two files: `checkpoint-00000100.safetensors` holds the tensors, `checkpoint-00000100.json` what else
is known, the SHA-256 of the first file and its own. The JSON file is renamed into place last, so that a checkpoint is
there entirely or not at all, whenever the process or the machine stops.
"""

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

KEPT = 2


class CheckpointError(ValueError):
    """A checkpoint that is not what was written; the message names the file and what is wrong with it."""


class Checkpoint(NamedTuple):
    """What `save` was given."""

    step: int
    facts: dict[str, Any]
    tensors: dict[str, Tensor]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into the folder, then remove all but the newest two.

    The facts are anything that JSON can hold; the tensors are on the CPU, contiguous, none sharing memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = _target(folder, checkpoint.step)
    aside = _aside(target.with_suffix(".safetensors"))
    save_file(checkpoint.tensors, aside)
    digest = _file_digest(aside)
    _commit(aside, target.with_suffix(".safetensors"))
    record = {"step": checkpoint.step, "tensors_sha256": digest, "facts": checkpoint.facts}
    write_atomically(target, json.dumps({**record, "sha256": _record_digest(record)}, indent=1) + "\n")
    _prune(folder)


def load(path: Path) -> Checkpoint:
    """Read the checkpoint whose JSON file is `path`.

    Raises CheckpointError if either file is missing, cut short or changed.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        own = record.pop("sha256")
        intact = own == _record_digest(record)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint's record ({error!r})") from error
    if not intact:
        raise CheckpointError(f"{path}: its contents do not match its checksum, so it was changed after it was written")
    return Checkpoint(record["step"], record["facts"], _load_tensors(path, record["tensors_sha256"]))


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in the folder that is intact; None if there is none at all.

    Warns for each that is refused and names the one used in its place.

    Raises CheckpointError if there are checkpoints, but none is intact.
    """
    refused: list[str] = []
    for path in sorted(folder.glob("checkpoint-*.json"), reverse=True):
        try:
            found = load(path)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        for message in refused:
            warnings.warn(f"{message}; going back to {path.name}", RuntimeWarning, stacklevel=2)
        return found
    if refused:
        raise CheckpointError("no checkpoint is intact: " + "; ".join(refused))
    return None


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's contents so that a reader, or a crash, meets the old text or the new, never a part."""
    aside = _aside(path)
    aside.write_text(text, encoding="utf-8")
    _commit(aside, path)


def _commit(aside: Path, target: Path) -> None:
    # The data must be on the disk before the name is, and the name before anything that relies on it.
    _sync(aside)
    os.replace(aside, target)
    if os.name == "posix":  # Windows opens no folders
        _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _load_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    file = path.with_suffix(".safetensors")
    try:
        found = _file_digest(file)
        if found != digest:
            raise CheckpointError(
                f"{file}: expected SHA-256 {digest[:12]}…; got {found[:12]}… of {file.stat().st_size} bytes"
            )
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error!r})") from error


def _prune(folder: Path) -> None:
    for path in sorted(folder.glob("checkpoint-*.json"))[:-KEPT]:
        path.unlink()
    kept = {path.stem for path in folder.glob("checkpoint-*.json")}
    for path in [*folder.glob("checkpoint-*.safetensors"), *folder.glob("checkpoint-*.aside")]:
        if path.stem not in kept or path.suffix == ".aside":
            path.unlink()


def _target(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step:08d}.json"


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".aside")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record_digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
