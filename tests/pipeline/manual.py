"""The manual as tests read it: pages, sections, tables, blocks of code. Judges nothing."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    """What stands below a heading, up to the next one of its rank or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", read(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {title}"
    return found[2]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of each table, the heading's and the rule's excluded."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    for before, line in pairwise([[""], *lines]):
        if not line[0].startswith("--") and before != [""]:
            yield line


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)


def command_lines(block: str) -> Iterator[list[str]]:
    """The words of each command of a shell block."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words
