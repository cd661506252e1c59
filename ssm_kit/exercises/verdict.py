"""What the reader is told: one status, what was compared, and a hint or an insight."""

import textwrap
from dataclasses import dataclass
from typing import Literal

Status = Literal["not attempted", "not yet", "right"]
Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True, repr=False)
class Verdict:
    """The result of one check, shown as text in a terminal and as Markdown in a notebook.

    `rows` are (label, text) pairs such as ("expected", "shape (5,), float64"), in the order in which they are shown.
    """

    heading: str
    status: Status
    rows: Rows = ()

    @property
    def right(self) -> bool:
        return self.status == "right"

    def __repr__(self) -> str:
        width = max((len(label) for label, _ in self.rows), default=0) + 1
        lines = [f"{self.heading}: {self.status}"]
        for label, text in self.rows:
            lead = f"  {label + ':':{width}} "
            lines += textwrap.wrap(text, 88, initial_indent=lead, subsequent_indent=" " * len(lead))
        return "\n".join(lines)

    def _repr_markdown_(self) -> str:
        items = (f"- *{label}:* {text}" for label, text in self.rows)
        return "\n".join([f"**{self.heading}: {self.status}**", "", *items])
