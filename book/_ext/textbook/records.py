"""The directive {stored-results}: every stored result, from the record that each carries, with its plot."""

import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ssm_kit import results
from ssm_kit.results import plots

ENTRY = """\
**{name}**. {what}. Took {wall_s:.0f} s{note} on {machine}, with torch {torch}, on {date}.
{picture}
```sh
{launcher} -m {module} \\
    --out ssm_kit/results/{name}.json
```
"""


class StoredResults(SphinxDirective):
    """For each file of `ssm_kit/results`: what, where, how long, and the command that makes it again."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for name in results.names():
            self.env.note_dependency(str(results.FOLDER / f"{name}.json"))
            lines += entry(name, results.load(name), drawn(name, self.env.app)).splitlines()
        holder = nodes.container(classes=["stored-results"])
        self.state.nested_parse(StringList(lines, "stored-results"), 0, holder)
        return [holder]


def drawn(name: str, app: Sphinx) -> str:
    """The image of a result's plot, drawn beside the other files of the build; nothing where there is none."""
    plot = getattr(plots, name, None)
    if plot is None:
        return ""
    file = Path(app.outdir).parent / "plots" / f"{name}.png"
    file.parent.mkdir(exist_ok=True)
    figure = plot(results.load(name))
    figure.savefig(file, dpi=150, bbox_inches="tight", pad_inches=0.1)
    plt.close(figure)
    place = Path(os.path.relpath(file, app.srcdir)).as_posix()  # the build may stand elsewhere than the sources
    return f"\n![{plot.__doc__.splitlines()[0]}](/{place})\n"


def entry(name: str, record: dict[str, Any], picture: str = "") -> str:
    """The paragraph and the command of one result; its settings may name a launcher, a number of GPUs, whose time."""
    settings = record["settings"]
    return ENTRY.format(
        name=name,
        picture=picture,
        machine=machine(record["gpu"], settings.get("gpus", "one")),
        module=record["script"].removesuffix(".py").replace("/", "."),
        launcher=settings.get("launcher", "python"),
        note=f" ({settings['wall_s']})" if "wall_s" in settings else "",
        **record,
    )


def machine(gpu: str | None, count: int | str) -> str:
    """What was at work: a CPU, some GPUs of one kind, or the kinds of GPU."""
    if gpu is None:
        return "a CPU"
    kinds = gpu.split(", ")
    return f"{count} {gpu}" if len(kinds) == 1 else " and ".join(kinds)


def setup(app: Sphinx) -> None:
    app.add_directive("stored-results", StoredResults)
