"""Citations are plain links: each leads to an entry of the bibliography, and the bibliography is sound."""

import json
import re
from pathlib import Path

import pytest
from pybtex.database import BibliographyData, parse_file

ROOT = Path(__file__).parent.parent
ARXIV = re.compile(r"https?://(?:www\.)?arxiv\.org/[^\s)>\]\"'}]*", re.IGNORECASE)
ENTRY = re.compile(r"https://arxiv\.org/abs/\d{4}\.\d{5}")
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("book/*.md"), *ROOT.glob("notebooks/*.ipynb")])


@pytest.fixture(scope="module")
def bibliography() -> BibliographyData:
    return parse_file(ROOT / "book" / "references.bib", bib_format="bibtex")


def links(path: Path) -> list[str]:
    """Addresses at arxiv.org in a page, or in the sources of a notebook's cells."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return ARXIV.findall(text)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_arxiv_link_is_in_the_bibliography(path, bibliography):
    known = {entry.fields.get("url") for entry in bibliography.entries.values()}
    assert sorted(set(links(path)) - known) == []


def test_links_are_found():
    """The search itself works: the notation page cites the three papers whose letters it explains."""
    cited = links(ROOT / "book" / "notation.md")
    assert set(cited) == {f"https://arxiv.org/abs/{i}" for i in ("2111.00396", "2312.00752", "2405.21060")}


def test_entries_are_complete(bibliography):
    for key, entry in bibliography.entries.items():
        assert entry.persons.get("author"), f"{key}: no author"
        assert {"title", "year"} <= set(entry.fields), f"{key}: no title or year"
        url = entry.fields.get("url")
        assert url or entry.type == "book", f"{key}: no url"
        if url and "arxiv.org" in url:
            assert ENTRY.fullmatch(url), f"{key}: write https://arxiv.org/abs/ID without version, not {url}"


def test_no_address_stands_twice(bibliography):
    urls = [entry.fields["url"] for entry in bibliography.entries.values() if "url" in entry.fields]
    assert len(urls) == len(set(urls))
