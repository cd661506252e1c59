"""Pytest plugin beside nbval: after a notebook's last cell, its widgets must be in the state stored in the file.

nbval looks at outputs only. Its kernel still holds every widget when the last cell has run, so one more request gives
all of their state, without a second execution.
"""

import json
from typing import Any

import pytest
from nbval.plugin import IPyNbFile

from tools.notebooks.normalise import normalised_models, widget_models

ASK = """
import json as _json
import sys as _sys
_widgets = _sys.modules.get("ipywidgets")
print(_json.dumps(_widgets.Widget.get_manager_state()["state"] if _widgets else {}))
"""


def printed(file: IPyNbFile, code: str) -> str:
    """What `code` prints in the notebook's kernel."""
    request, text = file.kernel.execute_cell_input(code, allow_stdin=False), ""
    while True:
        message = file.get_kernel_message(timeout=60)
        if message["parent_header"].get("msg_id") != request:
            continue
        content = message["content"]
        if message["msg_type"] == "error":
            raise AssertionError("\n".join(content["traceback"]))
        text += content["text"] if message["msg_type"] == "stream" else ""
        if content.get("execution_state") == "idle":
            return text


def differences(stored: dict[str, Any], fresh: dict[str, Any]) -> list[str]:
    """One line for each trait, of any model, that differs."""
    lines = [f"model {key} is in only one of them" for key in stored.keys() ^ fresh.keys()]
    for key in stored.keys() & fresh.keys():
        before, now = stored[key]["state"], fresh[key]["state"]
        lines += [
            f"{stored[key]['model_name']}.{trait}: stored {str(before.get(trait))[:80]}, now {str(now.get(trait))[:80]}"
            for trait in sorted(before.keys() | now.keys())
            if before.get(trait) != now.get(trait)
        ]
        kind = ("model_name", "buffers")
        lines += [f"{key}: {part}" for part in kind if stored[key].get(part) != fresh[key].get(part)]
    return lines


class StoredWidgets(pytest.Item):
    """Runs after the cells of one notebook, while its kernel lives."""

    def runtest(self) -> None:
        file: Any = self.parent
        fresh = normalised_models(file.path.stem, json.loads(printed(file, ASK)))
        if lines := differences(widget_models(file.nb), fresh):
            pytest.fail("the stored widget state is stale (`make notebooks`):\n" + "\n".join(lines), pytrace=False)

    def reportinfo(self) -> tuple[Any, int, str]:
        return self.path, 0, f"{self.path.name}: stored widgets"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = {item.parent for item in items if isinstance(item.parent, IPyNbFile)}
    for file in files:
        last = max(i for i, item in enumerate(items) if item.parent is file)
        items.insert(last + 1, StoredWidgets.from_parent(file, name="stored widgets"))
