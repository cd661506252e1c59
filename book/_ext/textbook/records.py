"""The directive {stored-results}: every stored result, from the record that each carries."""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ssm_kit import results

ENTRY = """\
**{name}**. {what}. Took {wall_s:.0f} s on {machine}, with torch {torch}, on {date}.

```sh
python -m {module} --out ssm_kit/results/{name}.json
```
"""


class StoredResults(SphinxDirective):
    """For each file of `ssm_kit/results`: what, where, how long, and the command that makes it again."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for name in results.names():
            self.env.note_dependency(str(results.FOLDER / f"{name}.json"))
            record = results.load(name)
            machine = "one " + record["gpu"] if record["gpu"] else "a CPU"
            module = record["script"].removesuffix(".py").replace("/", ".")
            lines += ENTRY.format(name=name, machine=machine, module=module, **record).splitlines()
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, "stored-results"), 0, holder)
        return holder.children


def setup(app: Sphinx) -> None:
    app.add_directive("stored-results", StoredResults)
