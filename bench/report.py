"""What a benchmark found: a table of figures, each beside its goal or its ratio; printed, and on request recorded."""

import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("RESULTS.md")
_HEAD = """\
# Results

Written by `python -m bench --record`; each section says on what machine, when and with which command.
"""
_STYLES = {"PASS": "green", "FAIL": "bold red"}


class Row(Struct, frozen=True):
    """One figure. `against` is its goal or what it compares with; `passed` is None where nothing is demanded."""

    figure: str
    value: str
    against: str = ""
    passed: bool | None = None

    @property
    def verdict(self) -> str:
        return {True: "PASS", False: "FAIL", None: ""}[self.passed]


class Report(Struct, frozen=True):
    """A benchmark's table. `about` says in a sentence or two how it was measured."""

    about: str
    rows: tuple[Row, ...]


def at_least(figure: str, value: float, goal: float, unit: str = "", digits: int = 0) -> Row:
    return Row(figure, show(value, unit, digits), f">= {show(goal, unit, digits)}", value >= goal)


def below(figure: str, value: float, goal: float, unit: str = "", digits: int = 0) -> Row:
    return Row(figure, show(value, unit, digits), f"< {show(goal, unit, digits)}", value < goal)


def exactly(figure: str, value: int, goal: int) -> Row:
    return Row(figure, f"{value:,}", f"= {goal:,}", value == goal)


def show(value: float, unit: str = "", digits: int = 0) -> str:
    """`"12,600 ev/s"`; a unit of "x" stands close: `"0.71x"`."""
    return f"{value:,.{digits}f}{'' if unit in ('', 'x') else ' '}{unit}"


def quantile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def display(name: str, report: Report, seconds: float, console: Console) -> None:
    table = Table(title=f"{name} ({seconds:.0f} s)", caption=report.about, title_justify="left", caption_justify="left")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("goal or ratio")
    table.add_column("verdict")
    for row in report.rows:
        table.add_row(row.figure, row.value, row.against, row.verdict, style=_STYLES.get(row.verdict))
    console.print(table)


def record(name: str, report: Report, circumstances: Mapping[str, str], order: list[str]) -> None:
    """Put the section of this benchmark into the results; the others stay as they are, all in the given order."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    found = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    sections = dict(zip(found[::2], found[1::2], strict=True))
    lines = ["", report.about, "", "| figure | measured | goal or ratio | verdict |", "|---|---:|---|---|"]
    lines += [f"| {row.figure} | {row.value} | {row.against} | {row.verdict} |" for row in report.rows]
    lines += ["", *(f"- {what}: {value}" for what, value in circumstances.items()), ""]
    sections[name] = "\n".join(lines)
    ordered = sorted(sections, key=lambda each: order.index(each) if each in order else len(order))
    body = "\n".join(f"## {each}\n{sections[each].rstrip()}\n" for each in ordered)
    RESULTS.write_text(f"{_HEAD}\n{body}", encoding="utf-8")
