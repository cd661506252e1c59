"""Measurements shipped with the book, each a JSON file with the record of how it was made: `load("name")`."""

import json
import math
import re
from datetime import date
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent

COMMIT = r"[0-9a-f]{7,40}"

# What a reader needs to judge a number, or to measure it again.
PROVENANCE: dict[str, tuple[type, ...]] = {
    "what": (str,),  # one sentence: the quantity, with its unit
    "script": (str,),  # path in the repository of the program that made it
    "commit": (str,),  # the repository's state when it ran
    "date": (str,),  # YYYY-MM-DD
    "gpu": (str, type(None)),  # null: measured on a CPU
    "torch": (str,),
    "triton": (str, type(None)),  # null: not used
    "seeds": (list,),  # whole numbers; empty where nothing is random
    "wall_s": (int, float),  # how long the whole run took, in seconds
    "settings": (dict,),  # sizes, dtypes, repeats
    "data": (list, dict),  # the numbers
}


def names() -> list[str]:
    """Names of all shipped results."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> dict[str, Any]:
    """The stored result `name`: its record (see `PROVENANCE`) and, under "data", its numbers.

    Raises ValueError if there is no such result (the message lists all), or if the file breaks the schema.
    """
    if name not in names():
        raise ValueError(f"name: expected one of {', '.join(names()) or '(no result is stored)'}; got {name!r}")
    result = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    validate(result, name)
    return result


def validate(result: Any, name: str) -> None:
    """Raise ValueError, naming the entry, what was expected and what came, unless `result` follows the schema."""
    if not isinstance(result, dict) or result.keys() != PROVENANCE.keys():
        found = ", ".join(sorted(result)) if isinstance(result, dict) else type(result).__name__
        raise ValueError(f"{name}: expected exactly the entries {', '.join(PROVENANCE)}; got {found}")
    for entry, types in PROVENANCE.items():
        if not isinstance(result[entry], types) or isinstance(result[entry], bool):
            expected = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            raise _error(name, entry, expected, result[entry])
    for entry, (holds, expected) in _rules(result).items():
        if not holds:
            raise _error(name, entry, expected, result[entry])


def _rules(result: dict) -> dict[str, tuple[bool, str]]:
    """For each entry with more than a type to it: does it hold, and what was expected."""
    seeds = result["seeds"]
    return {
        "what": (bool(result["what"].strip()), "a sentence"),
        "script": (bool(re.fullmatch(r"[\w./-]+\.py", result["script"])), "the path of a .py file in the repository"),
        "commit": (bool(re.fullmatch(COMMIT, result["commit"])), "7 to 40 hexadecimal digits"),
        "date": (_is_date(result["date"]), "a date as YYYY-MM-DD"),
        "gpu": (result["gpu"] is None or bool(result["gpu"].strip()), "a GPU's name or null"),
        "torch": (_is_version(result["torch"]), "a version number"),
        "triton": (result["triton"] is None or _is_version(result["triton"]), "a version number or null"),
        "seeds": (all(type(seed) is int for seed in seeds), "whole numbers"),
        "wall_s": (math.isfinite(result["wall_s"]) and result["wall_s"] > 0, "a finite number of seconds > 0"),
        "data": (bool(result["data"]) and _all_finite(result["data"]), "finite numbers, at least one"),
    }


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _is_version(text: str) -> bool:
    return bool(re.match(r"\d+\.\d+", text))


def _all_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    if isinstance(value, list):
        return all(map(_all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _error(name: str, entry: str, expected: str, got: Any) -> ValueError:
    return ValueError(f"{name}: {entry}: expected {expected}; got {str(got)[:80]!r}")
