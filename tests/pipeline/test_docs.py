"""The manual says what the program does: commands run or parse, tables match the code, links lead somewhere.

The code is the truth; a page that lags behind it fails here.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import numpy as np
import pytest
from honcho.environ import parse_procfile

from billingwatch.cli import COMMANDS, main
from billingwatch.model import Channel, Fact
from billingwatch.rules import Rules, parse_rules
from billingwatch.settings import Problem
from billingwatch.simulator.evidence import binomial, poisson
from detectors import facts
from detectors.catalogue import DETECTORS, LINES, SILENCE
from detectors.dispersion import Dispersion
from detectors.event import read_event
from detectors.forecast import PRIORS
from detectors.registry import SHIPPED, configure, settings
from detectors.rule import KEYS, METRICS
from detectors.sentence import sentence
from detectors.setting import span
from detectors.sheet import BINS
from detectors.signal import Signal
from detectors.strip import BIN, Line, Rate, Strip
from ingest import queue as ingest_queue
from ingest import signature
from ingest.metrics import Metrics
from ingest.queue import Health
from notify.policy import configure as configure_policy
from notify.send import problem
from tests.pipeline.manual import PAGES, ROOT, blocks, command_lines, read, rows, section

CODE = ("billingwatch", "detectors", "ingest", "notify", "worker")
OFFLINE = {
    "version",
    "simulate",
    "backtest",
    "notify",
    "check",
}  # commands that need no server and no network without a channel


SHELL = [(page, block) for page in PAGES for block in blocks(page, "sh")]
NAMED = sorted(
    {
        (page, text)
        for page, path in PAGES.items()
        for text in re.findall(r"`billingwatch ([a-z][^`]*)`", path.read_text())
    }
    | {
        (page, shlex.join(words[1:]))
        for page, block in SHELL
        for words in command_lines(block)
        if words[0] == "billingwatch"
    }
)


# Commands


@pytest.mark.parametrize(("page", "text"), NAMED)
def test_every_command_named_exists_with_its_options(page: str, text: str) -> None:
    words = shlex.split(text)
    command: click.Command = main
    with click.Context(main) as context:
        while words and isinstance(command, click.Group) and not words[0].startswith("-"):
            found = command.get_command(context, words.pop(0))
            assert found, f"{page}: billingwatch {text}"
            command = found
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    assert {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} <= options
    argument = next((each for each in command.params if isinstance(each, click.Argument)), None)
    if words and argument and isinstance(argument.type, click.Choice):
        assert words[0] in argument.type.choices


def test_every_command_there_is_stands_in_the_manual() -> None:
    assert {text.split()[0] for _, text in NAMED} >= COMMANDS.keys()


@pytest.mark.parametrize("block", [block for page, block in SHELL if page == "README.md"])
def test_commands_of_the_readme_that_need_no_server_run(block: str, tmp_path: Path) -> None:
    lines = list(command_lines(block))
    if not all(words[0] == "billingwatch" and words[1] in OFFLINE for words in lines):
        assert any(words[0] in {"make", "git", "export"} for words in lines), "a block that no test runs or reads"
        return
    for words in lines:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
    assert "refund_spike" in (tmp_path / "labels.json").read_text()
    assert (tmp_path / "events.jsonl").read_bytes().count(b"\n") > 100


def test_one_block_of_the_readme_is_run() -> None:
    runs = [
        b for p, b in SHELL if p == "README.md" and all(words[1] in OFFLINE for words in command_lines(b) if words[1:])
    ]
    assert any(block.startswith("billingwatch") for block in runs)


@pytest.mark.parametrize("target", sorted({w[1] for _, b in SHELL for w in command_lines(b) if w[0] == "make"}))
def test_every_make_target_named_exists(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr.decode()


def test_processes_of_the_readme_and_of_the_manual_are_those_of_the_procfile() -> None:
    # Options say where a process listens, and are not what it is.
    lines = [line.partition(" --")[0] for line in parse_procfile(read("Procfile")).processes.values()]
    named = re.findall(r"^\| `(billingwatch [^`]*)`", read("README.md"), re.MULTILINE)
    assert sorted(named) == sorted(lines)
    in_operation = re.findall(r"^\| `(billingwatch [^`]*)`", section("docs/operate.md", "Processes"), re.MULTILINE)
    assert {*in_operation, "billingwatch migrate"} == set(lines)
    started = next(words for _, block in SHELL for words in command_lines(block) if words[0] == "honcho")
    assert {*started[2:], "release"} == parse_procfile(read("Procfile")).processes.keys()


# Links


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and most others make them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_and_anchor_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page].read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (PAGES[page].parent / name).resolve() if name else PAGES[page]
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(path), f"{page}: {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    assert set(re.findall(r"\]\((docs/\w+\.md)\)", read("README.md"))) == PAGES.keys() - {"README.md"}


# Configuration

_VARIABLE = re.compile(r"\b(?:(?:BILLINGWATCH|STRIPE|DATABASE|REDIS|LOG|PROMETHEUS)_[A-Z_]+|PORT)\b")


def variables(text: str) -> set[str]:
    """The variables in a text: without _FILE, and each source's secret as the one that it is."""
    found = {name.removesuffix("_FILE") for name in _VARIABLE.findall(text)}
    return {re.sub(r"^(STRIPE_WEBHOOK_SECRET)_.*", r"\1", name) for name in found}


def variables_of_the_code() -> set[str]:
    """String constants that are the name of a variable."""
    found = set()
    for path in (path for folder in CODE for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _VARIABLE.fullmatch(node.value):
                found |= variables(node.value)
    return found


def test_the_manual_names_every_variable_that_is_read_and_no_other() -> None:
    assert variables(section("docs/configure.md", "Environment")) == variables_of_the_code()


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_variable_that_nothing_reads(page: str) -> None:
    assert variables(PAGES[page].read_text()) <= variables_of_the_code()


def load(text: str) -> tuple[Rules, list[str]]:
    """The rules in this text and everything that is wrong with them, detectors' and alerting's sections included."""
    problems: list[Problem] = []
    env = {f"{name}_URL": "console://" for name in ("WHATSAPP", "SLACK", "MAIL", "PUSHOVER", "CTO")}
    rules = parse_rules(text, env, "text", problems)
    _, wrong = configure_policy(rules.alerting, rules.members)
    return rules, [*map(str, problems), *configure(rules.sections)[1].values(), *wrong.values()]


def uncommented() -> str:
    """The example with every setting taken into use: a line of prose has a space after its #."""
    return re.sub(r"^#(?=\S)", "", read("billingwatch.example.toml"), flags=re.MULTILINE)


@pytest.mark.parametrize(("page", "block"), [(page, block) for page in PAGES for block in blocks(page, "toml")])
def test_every_toml_shown_is_without_mistake(page: str, block: str) -> None:
    assert load(block)[1] == []


def shown_channels() -> dict[str, Channel]:
    """By their URL."""
    table = [row[1].strip("`") for row in rows(section("docs/alerts.md", "Channels"))]
    found = [*map(Channel, table), *map(Channel, re.findall(r'"(slack://[^"]*)"', read("README.md")))]
    for text in (uncommented(), *blocks("docs/alerts.md", "toml")):
        found += load(text)[0].channels.values()
    return {channel.url: channel for channel in found}


@pytest.mark.parametrize("url", sorted(shown_channels()))
def test_every_channel_shown_is_of_a_shape_that_can_be_sent_to(url: str) -> None:
    assert problem(shown_channels()[url]) is None


# Detectors


@pytest.mark.parametrize("name", SHIPPED)
def test_every_key_of_a_detector_is_explained_with_its_default(name: str) -> None:
    table = {
        key.strip("`"): default.strip("`")
        for key, default, *_ in rows(section("docs/detectors.md", name))
        if key[:1] == "`"
    }
    assert {key: msgspec.json.decode(default) for key, default in table.items()} == settings(SHIPPED[name])


def test_the_readme_lists_the_detectors_there_are() -> None:
    assert [row[0].strip("`") for row in rows(section("README.md", "What it detects today"))] == list(SHIPPED)


def ticked(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]*)`", cell))


def test_every_line_is_explained_with_what_it_counts() -> None:
    table = {
        row[0].strip("`"): (ticked(row[1]), ticked(row[2]), "money" in row[2])
        for row in rows(section("docs/detectors.md", "How it works"))
        if row[0].strip("`") in LINES
    }
    assert table == {name: (each.metrics, each.strata, each.amounts) for name, each in LINES.items()}


def test_every_metric_is_explained_with_what_a_rule_may_ask_of_it() -> None:
    table = {
        row[0].strip("`"): (ticked(row[1]), ticked(row[3])) for row in rows(section("docs/detectors.md", "Metrics"))
    }
    assert table == {name: (each.strata, each.tells) for name, each in METRICS.items()}


def test_every_key_of_a_rule_is_explained() -> None:
    table = [row[0] for row in rows(section("docs/detectors.md", "Rules of your own"))]
    assert {key for cell in table for key in ticked(cell)} == KEYS.keys()


def test_the_first_day_of_each_detector_is_told() -> None:
    table = {row[0].strip("`"): float(row[1]) for row in rows(section("docs/detectors.md", "Cold start"))}
    assert table == {name: getattr(each, "days", 0.0) for name, each in SHIPPED.items()}


# What is usual in an hour of the examples, what is seen in a window, and the line of which one less is no signal.
EXAMPLES: dict[str, tuple[dict[str, float], dict[str, float], str]] = {
    "failure_rate": ({}, {"attempt.checkout": 20, "failure.checkout": 11}, "failure.checkout"),
    "card_testing": ({"small": 0.5, "success": 12}, {"small": 7}, "small"),
    "refund_spike": ({"refund": 0.5}, {"refund": 16}, "refund"),
    "churn_spike": ({"cancel": 2}, {"cancel": 15}, "cancel"),
    "dispute_spike": ({"dispute": 1 / 24}, {"dispute": 11}, "dispute"),
    "duplicate_charges": ({"success": 100, "duplicate": 0.05}, {"duplicate": 7}, "duplicate"),
    "volume_drop": ({"attempt.checkout": 60}, {"attempt.checkout": 10}, "attempt.checkout"),
    "revenue_drop": ({"revenue.usd": 10}, {"revenue.usd": 125}, "revenue.usd"),
    "mrr_drop": ({"mrr_lost.usd": 0.1}, {"mrr_lost.usd": 20, "contraction": 6}, "mrr_lost.usd"),
    "webhook_lag": ({}, {"arrived": 20, "late": 4}, "late"),
    "webhook_silence": ({"any": 12}, {}, ""),
}
HOURS, UNIT = 96, 2900.0  # of the strip; minor units that weigh as one event


def flat(usual: dict[str, float], seen: dict[str, float], window: int) -> Strip:
    """An account that is old and steady; what is seen of it is spread over the window."""
    lines = {}
    for name in {*LINES, *usual}:
        counts = np.repeat(usual.get(name, 0.0) / BINS, HOURS * BINS)
        counts[-window:] = seen[name] / window if name in seen else counts[-window:]
        known = np.full(HOURS, usual[name]) if name in usual else None
        lines[name] = Line(counts, known, dispersion=Dispersion(), records={36: 10.0})
    rates = {"checkout": Rate(0.06, 0.12), "renewal": Rate(0.08, 0.12), "duplicate": PRIORS["duplicate"]}
    return Strip(0, lines, rates, age=60)


def example(name: str, seen: dict[str, float], window: int) -> Signal | None:
    """What the detector says at the end of a window of this length alone."""
    strip, end = flat(EXAMPLES[name][0], seen, window), np.array([float(HOURS * BINS)])
    if name == SILENCE.name:
        return SILENCE.scan(strip, end, end - window).get(0)
    return msgspec.structs.replace(DETECTORS[name], windows=(window,)).scan(strip, end).get(0)  # type: ignore[type-var]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_example_worked_by_hand_comes_out_as_the_manual_says_and_is_the_first_signal(name: str) -> None:
    text = section("docs/detectors.md", name)
    (row,) = (row for row in rows(text) if re.fullmatch(r"\d+[mhd]", row[0]))
    window = span(864)(row[0])
    _, seen, line = EXAMPLES[name]
    signal = example(name, seen, window)
    assert signal
    found = (signal.observed, signal.expected, signal.sd**2, signal.score, signal.needed)
    shown = [f"{value:.{len(cell.partition('.')[2])}f}" for value, cell in zip(found, row[1:], strict=True)]
    assert shown == row[1:]
    dated = msgspec.structs.replace(signal, start=signal.start * BIN, end=signal.end * BIN)
    assert f"\n> {sentence(dated, SHIPPED[name], UNIT)}\n" in text
    calmer = seen | {each: seen[each] + (1 if signal.side == "down" else -1) for each in seen if each == line}
    assert example(name, calmer, window if line else window - 1) is None


def test_the_rule_worked_by_hand_holds_from_the_count_that_the_manual_says() -> None:
    plans, _ = configure({"rules": {"mine": {"metric": facts.REFUND}}})
    rule = plans.of("").detectors["mine"]
    hits = {}
    for count in (2, 3):
        counts = np.zeros(15 * 288)
        counts[-12 - 7 * 288 : -12 : 24] = 1  # 84 in 7 days
        counts[-1] = count
        hits[count] = rule.scan(Strip(0, {"rule.mine": Line(counts)}, {}, age=60), np.array([15 * 288.0])).get(0)
    assert hits[2] is None
    assert hits[3]
    dated = msgspec.structs.replace(hits[3], start=hits[3].start * BIN, end=hits[3].end * BIN)
    assert f"\n> {sentence(dated, rule)}\n" in section("docs/detectors.md", "Rules of your own")


def test_the_limits_of_physics_follow_from_the_evidence_of_an_event() -> None:
    days = {"s": 1 / 86_400, "min": 1 / 1440, "h": 1 / 24, "d": 1.0}
    for change, nats, events, *waits in rows(section("docs/detectors.md", "Limits")):
        numbers = [int(each) / 100 for each in re.findall(r"(\d+) %", change)]
        usual, now = numbers if len(numbers) == 2 else (0.0, 1 - (numbers or [1.0])[0])
        worth = binomial(1, now, usual) if len(numbers) == 2 else poisson(now, 1)
        assert float(nats) == pytest.approx(worth, rel=0.01)
        assert int(events) == round(12 / worth)
        for wait, volume in zip(waits, (5, 50, 500, 5_000, 50_000), strict=True):
            value, unit = wait.split()
            assert float(value) * days[unit] == pytest.approx(12 / worth / volume, rel=0.05)


def told() -> dict[str, str]:
    """What the manual says that each event type tells."""
    return {
        row[0].strip("`"): row[1] for row in rows(section("docs/detectors.md", "What is counted")) if row[0][:1] == "`"
    }


def test_the_manual_lists_the_event_types_that_are_read() -> None:
    assert told().keys() == facts._READERS.keys()


@pytest.mark.parametrize("path", sorted((ROOT / "tests/payloads").glob("*.json")), ids=lambda path: path.stem)
def test_what_a_payload_tells_stands_in_the_row_of_its_type(path: Path) -> None:
    event = read_event(path.read_bytes())
    for fact in facts.read_facts(event):
        metric = fact.metric if isinstance(fact, Fact) else facts.REFUND
        assert metric == facts.ANY or f"`{metric}`" in told()[event.type]


def test_only_event_types_that_are_read_are_recommended() -> None:
    recommended = re.findall(
        r"^([a-z_]+\.[a-z_.]+)$", section("docs/detectors.md", "Event types to subscribe to"), re.MULTILINE
    )
    assert set(recommended) <= facts._READERS.keys()
    assert len(recommended) == len(set(recommended)) == 16


# Operation


def test_every_metric_of_the_receiver_is_explained() -> None:
    text = Metrics().render(Health(), 0).decode()
    names = {
        name for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE) if not name.endswith("_created")
    }
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    table = {
        row[0].strip("`"): row[1] for row in rows(section("docs/operate.md", "Health")) if row[1] in kinds.values()
    }
    assert table == {name: kinds[name] for name in names}


def test_every_reason_to_refuse_a_delivery_is_explained() -> None:
    table = {row[0].strip("`") for row in rows(section("docs/operate.md", "Health")) if row[1].isdigit()}
    reasons = {each.reason for each in vars(signature).values() if isinstance(each, signature.Rejected)}
    reasons |= {each.reason for each in vars(ingest_queue).values() if isinstance(each, Health)}
    assert reasons <= table
    source = read("ingest/app.py") + read("ingest/queue.py") + read("ingest/signature.py")
    assert [reason for reason in table if f'"{reason}"' not in source] == []


def test_every_word_of_the_log_explained_is_one_that_is_logged() -> None:
    source = "\n".join(path.read_text() for folder in CODE for path in (ROOT / folder).rglob("*.py"))
    logged = set(re.findall(r'\blog\.\w+\(\s*"(\w+)"', source))
    explained = {word for row in rows(section("docs/operate.md", "Logs")) for word in re.findall(r"`(\w+)`", row[0])}
    assert explained
    assert explained - logged == set()
