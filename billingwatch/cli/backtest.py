"""`billingwatch backtest`: what these rules would have told of these events, how much of it was noise, what was missed.

Judges by the live code and changes nothing: no incident is stored and nobody is told.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec
import psycopg
from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from billingwatch import arrivals
from billingwatch.chart import FAILURE, Chart, NoScripts, Nothing, scripts
from billingwatch.cli import verdict
from billingwatch.cli.proposal import propose
from billingwatch.cli.start import open_store
from billingwatch.model import Tenant
from billingwatch.settings import DEFAULT_SOURCE
from billingwatch.store.connection import away
from detectors import setting
from detectors.backtest import Arrival, Finding, Trial
from detectors.catalogue import kind
from detectors.judgement import Spans
from detectors.registry import Plans
from detectors.score import Label, Ledger, difference, score, weeks

EPILOG = """\b
Examples:
  A month that never was, with an incident, and what is found of it:
    billingwatch simulate --days 30 --seed 1 --incident refund_spike@+20d3h -o month.jsonl --labels month.json
    billingwatch backtest month.jsonl --labels month.json
  The events that were stored, as far back as they go, by the rules in force:
    billingwatch backtest
  Would a calmer dial have been enough, and what of refunds counted by the hour alone?
    billingwatch backtest month.jsonl --set sensitivity=quiet --set 'refund_spike.windows=["1h"]'
  What does a change of the rules add and remove?
    billingwatch backtest month.jsonl --compare billingwatch.toml proposed.toml
  In CI: fail where the rules would cry wolf more than once in ten weeks:
    billingwatch backtest calm.jsonl.gz --config billingwatch.toml --max-noise 0.1
  One detector, drawn:
    billingwatch backtest month.jsonl --detector failure_rate --chart failures.html
"""
TOTAL = "in all"  # no rule can have this name
WIDE = 1000  # columns where no terminal says how many there are: a line an incident
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Side(Struct):
    """One set of plans on trial, and what it told so far."""

    title: str
    plans: Plans
    trial: Trial
    ledger: Ledger


@click.command(epilog=EPILOG)
@click.argument(
    "files",
    nargs=-1,
    metavar="[FILE]...",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
)
@click.option("--labels", "label_file", type=FILE, help="What happened, as JSON: `simulate --labels` writes it.")
@click.option("--detector", "names", multiple=True, metavar="NAME", help="Judge by this one only; may be repeated.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Try another setting, as in failure_rate.sensitivity=8 or rules.mine.factor=2; may be repeated.",
)
@click.option("--config", type=FILE, help="The TOML file.  [default: BILLINGWATCH_CONFIG or billingwatch.toml]")
@click.option("--compare", nargs=2, type=FILE, metavar="A B", help="What the TOML file B adds to and removes from A's.")
@click.option(
    "--chart", "chart_file", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Draw here."
)
@click.option("--chart-metric", metavar="LINE", default="", help="What to draw.  [default: the first incident's]")
@click.option(
    "--max-noise", type=click.FloatRange(0), metavar="N", help="Exit 1 with more false incidents an account-week."
)
@click.option("--account", default=DEFAULT_SOURCE, show_default=True, help="The account of events that name none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def backtest(
    files: tuple[Path, ...],
    label_file: Path | None,
    names: tuple[str, ...],
    changes: tuple[str, ...],
    config: Path | None,
    compare: tuple[Path, Path] | None,
    chart_file: Path | None,
    chart_metric: str,
    max_noise: float | None,
    account: str,
    as_json: bool,
) -> None:
    """Judge past events as the live system would have, and tell what it would have told.

    FILE holds JSON Lines, compressed by gzip or not, '-' is stdin: a line is a Stripe event, or {"received_at":
    SECONDS, "event": {…}}. Several files are merged by time. Without a FILE the events of the database are judged.
    Each event is seen from its arrival on, and each minute is judged. Without --labels every incident counts as
    noise. Exit code 1 says that lines were malformed or that there was too much noise.
    """
    if compare and (config or chart_file):
        raise click.UsageError("--compare excludes --config and --chart")
    labels = _labels(label_file, account)
    plans = [propose(path, changes, names) for path in compare or (config,)]
    chart = _chart(chart_file, chart_metric, plans[0])
    console, malformed, begun = Console(stderr=True), Malformed(), time.perf_counter()
    try:
        with ExitStack() as stack:
            events, expected = _events(stack, files, console, malformed)
            sides = [
                Side(
                    str(path or ""),
                    each,
                    Trial(each, account, expected=expected, observe=chart.observe if chart else None),
                    Ledger(),
                )
                for path, each in zip(compare or (None,), plans, strict=True)
            ]
            whole = _run(events, sides, chart)
    except psycopg.Error as error:
        click.echo(f"Postgres cannot be read on ({away(error)}). Was `billingwatch migrate` run?", err=True)
        sys.exit(1)
    if not whole:
        click.echo("Interrupted: what follows is partial.", err=True)
    took = time.perf_counter() - begun
    tell = _tell_difference if compare else _tell
    noise = tell(sides, labels, malformed.lines, took, as_json)
    drawn = not (chart and chart_file) or _draw(chart, chart_file, sides[0])
    if not whole:
        sys.exit(130)
    if max_noise is not None and noise > max_noise:
        click.echo(f"{noise:.2f} false incidents an account-week are more than {max_noise:g}.", err=True)
        sys.exit(1)
    sys.exit(0 if drawn and not malformed.lines else 1)


class Malformed(Struct):
    """How many lines held no event."""

    lines: int = 0


def _labels(path: Path | None, account: str) -> list[Label] | None:
    """The labels; those of the default account are of the one that events name none of."""
    if path is None:
        return None
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[Label])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} holds no labels: {error}", param_hint="--labels") from None
    return [replace(each, account=account) if each.account in ("", DEFAULT_SOURCE) else each for each in found]


def _chart(path: Path | None, line: str, plans: Plans) -> Chart | None:
    """What is to be drawn; each reason why it could not be is told before anything is read."""
    if path is None:
        if line:
            raise click.UsageError("--chart-metric needs --chart")
        return None
    known = {FAILURE, *(name for plan in plans.by_account.values() for name in plan.lines)}
    if line and line not in known and kind(line) == line:
        hint = setting.meant(line, known) or setting.listed(sorted(known))
        raise click.BadParameter(f"no line {line!r} ({hint})", param_hint="--chart-metric")
    if not path.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.parent}", param_hint="--chart")
    try:
        scripts()
    except NoScripts:
        raise click.UsageError("--chart needs vl-convert-python (pip install 'billingwatch[console]')") from None
    return Chart(line)


def _events(
    stack: ExitStack, files: Sequence[Path], console: Console, malformed: Malformed
) -> tuple[Iterator[Arrival], Mapping[Tenant, Spans]]:
    """What is to be judged, with a bar on a terminal, and what people announced of it."""
    bar = None
    if console.is_terminal:
        columns = (TextColumn("judging"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        bar = stack.enter_context(Progress(*columns, console=console, transient=True))
        task = bar.add_task("", total=arrivals.size(files) if files else None)

    def hear(file: str, number: int, reason: str) -> None:
        malformed.lines += 1
        console.print(f"{file}:{number}: {reason}", markup=False, highlight=False, soft_wrap=True)

    def progress(read: int) -> None:
        if bar:
            bar.advance(task, read)

    if files:
        return arrivals.read_files(files, malformed=hear, progress=progress), {}
    conn = stack.enter_context(open_store())
    return arrivals.read_events(conn), arrivals.announced(conn)


def _run(events: Iterable[Arrival], sides: Sequence[Side], chart: Chart | None) -> bool:
    """One reading for all sides; False where a person stopped it."""
    try:
        for arrival in events:
            for side in sides:
                _hear(side, side.trial.take(arrival), chart)
        for side in sides:
            _hear(side, side.trial.end(), chart)
    except KeyboardInterrupt:
        return False
    return True


def _hear(side: Side, findings: Sequence[Finding], chart: Chart | None) -> None:
    if findings:
        side.ledger.add(findings)
        if chart:
            incident = findings[0].incident
            chart.focus(incident, side.plans.of(incident.tenant.account, incident.tenant.livemode))


def _tell(sides: Sequence[Side], labels: Sequence[Label] | None, malformed: int, took: float, as_json: bool) -> float:
    """Print what was found; its noise an account-week."""
    (side,) = sides
    counts, raised = side.trial.counts, side.ledger.raised
    unparsed = counts.unparsed + malformed
    scores, total = score(raised, labels or (), weeks(counts))
    everything = {**scores, TOTAL: total}
    if as_json:
        shown = verdict.as_json(counts, unparsed, raised, took, None if labels is None else everything)
        click.echo(json.dumps(shown, indent=2))
        return total.a_week
    click.echo(verdict.summary(counts, unparsed, weeks(counts), took))
    if scores:
        _print(verdict.scored(everything, labelled=labels is not None))
    if raised:
        _print(verdict.listed(raised, labels))
    else:
        click.echo("\nNo incidents.")
    return total.a_week


def _tell_difference(
    sides: Sequence[Side], labels: Sequence[Label] | None, malformed: int, took: float, as_json: bool
) -> float:
    """Print what the second side's rules add and remove; their noise an account-week."""
    before, after = sides
    counts = after.trial.counts
    unparsed = counts.unparsed + malformed
    added, removed = difference(before.ledger.raised, after.ledger.raised)
    totals = [score(side.ledger.raised, labels or (), weeks(counts))[1] for side in sides]
    if as_json:
        shown = {
            name: verdict.as_json(counts, unparsed, raised, took, scores)
            for name, raised, scores in (
                ("a", before.ledger.raised, {TOTAL: totals[0]}),
                ("b", after.ledger.raised, {TOTAL: totals[1]}),
            )
        }
        changes = {"added": verdict.incidents(added), "removed": verdict.incidents(removed)}
        click.echo(json.dumps({**shown, **changes}, indent=2))
        return totals[1].a_week
    click.echo(verdict.summary(counts, unparsed, weeks(counts), took))
    rows = dict(zip((f"A {before.title}", f"B {after.title}"), totals, strict=True))
    _print(verdict.scored(rows, labelled=labels is not None, title="rules"))
    for title, some in (("Added by B", added), ("Removed by B", removed)):
        click.echo(f"\n{title}: {len(some) or 'nothing'}")
        if some:
            _print(verdict.listed(some, labels))
    return totals[1].a_week


def _print(table: Table) -> None:
    click.echo()
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def _draw(chart: Chart, path: Path, side: Side) -> bool:
    try:
        path.write_text(chart.page(each.incident for each in side.ledger.raised), encoding="utf-8")
    except Nothing as error:
        click.echo(f"{path} was not drawn: {error}", err=True)
        return False
    return True
