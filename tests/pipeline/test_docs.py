"""The manual says what the program does: commands run or parse, tables match the code, links lead somewhere.

The code is the truth; a page that lags behind it fails here.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import msgspec
import pytest
from honcho.environ import parse_procfile

from billingwatch.cli import COMMANDS, main
from billingwatch.model import Bucket, Fact, Verdict
from billingwatch.rules import Rules, parse_rules
from billingwatch.settings import Problem
from detectors import facts
from detectors.event import read_event
from detectors.registry import DETECTORS, SHIPPED, configure, settings
from detectors.series import Reading, Series
from ingest import queue as ingest_queue
from ingest import signature
from ingest.metrics import Metrics
from ingest.queue import Health
from notify.send import problem
from tests.pipeline.manual import PAGES, ROOT, blocks, command_lines, read, rows, section

CODE = ("billingwatch", "detectors", "ingest", "notify", "worker")
OFFLINE = {"version", "simulate", "notify"}  # commands that need no server and no network without a channel
NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


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
    """The rules in this text and everything that is wrong with them, the detectors' sections included."""
    problems: list[Problem] = []
    rules = parse_rules(text, {"WHATSAPP_URL": "console://"}, "text", problems)
    return rules, [*map(str, problems), *configure(rules.sections)[1].values()]


def uncommented() -> str:
    """The example with every setting taken into use: a line of prose has a space after its #."""
    return re.sub(r"^#(?=\S)", "", read("billingwatch.example.toml"), flags=re.MULTILINE)


@pytest.mark.parametrize(("page", "block"), [(page, block) for page in PAGES for block in blocks(page, "toml")])
def test_every_toml_shown_is_without_mistake(page: str, block: str) -> None:
    assert load(block)[1] == []


def shown_urls() -> set[str]:
    table = {row[1].strip("`") for row in rows(section("docs/alerts.md", "Channels"))}
    return (
        table | set(load(uncommented())[0].channels.values()) | set(re.findall(r'"(slack://[^"]*)"', read("README.md")))
    )


@pytest.mark.parametrize("url", sorted(shown_urls()))
def test_every_channel_url_shown_is_of_a_shape_that_apprise_takes(url: str) -> None:
    assert problem(url) is None


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


def counted(metric: str, moment: datetime, count: int, stratum: str = "") -> list[Bucket]:
    """What the rollups hold of something that was counted at a moment: a bucket of each grain."""
    at = int(moment.timestamp())
    return [Bucket(metric, stratum, "", grain, at // (grain * 60) * grain * 60, count, 0) for grain in (5, 60)]


def judge(name: str, buckets: list[Bucket], quiet: timedelta = timedelta(0)) -> Verdict:
    verdict = DETECTORS[name](
        Reading(
            series=Series(buckets), at=NOON, since=NOON - timedelta(days=30), newest=NOON - quiet, received=NOON - quiet
        )
    )
    assert verdict
    return verdict


DAYS = [NOON - timedelta(days=day) for day in range(1, 8)]  # of the week before, within 7 days of the last hour
REFUNDS = [bucket for day in DAYS for bucket in counted(facts.REFUND, day, 12)]
EARLIER = NOON - timedelta(days=3)
ATTEMPTS = counted(facts.PAYMENT_SUCCEEDED, EARLIER, 940, facts.CHECKOUT) + counted(
    facts.PAYMENT_FAILED, EARLIER, 60, facts.CHECKOUT
)
CANCELED = [bucket for day in DAYS for bucket in counted(facts.CANCELED, day, 48)]
PULSE = [bucket for hour in range(3, 24 * 14) for bucket in counted(facts.ANY, NOON - timedelta(hours=hour), 12)]


def of_twenty(failures: int) -> list[Bucket]:
    return (
        ATTEMPTS
        + counted(facts.PAYMENT_FAILED, NOON, failures, facts.CHECKOUT)
        + counted(facts.PAYMENT_SUCCEEDED, NOON, 20 - failures, facts.CHECKOUT)
    )


def test_the_examples_worked_by_hand_come_out_as_the_manual_says() -> None:
    found = {
        "failure_rate": judge("failure_rate", of_twenty(12)),
        "refund_spike": judge("refund_spike", REFUNDS + counted(facts.REFUND, NOON, 5)),
        "webhook_silence": judge("webhook_silence", PULSE, timedelta(hours=2, minutes=30)),
    }
    for name, verdict in found.items():
        quote = re.search(r"^> (.*)$", section("docs/detectors.md", name), re.MULTILINE)
        assert quote
        assert verdict.breached
        assert verdict.why.startswith(quote[1])


@pytest.mark.parametrize(
    ("name", "buckets", "breached", "severity"),
    [
        ("failure_rate", of_twenty(8), False, "critical"),
        ("failure_rate", of_twenty(12), True, "critical"),
        ("refund_spike", REFUNDS + counted(facts.REFUND, NOON, 4), False, "high"),
        ("refund_spike", REFUNDS + counted(facts.REFUND, NOON, 12), True, "high"),
        ("refund_spike", REFUNDS + counted(facts.REFUND, NOON, 13), True, "critical"),
        ("dispute_spike", counted(facts.DISPUTE, NOON, 2), False, "high"),
        ("dispute_spike", counted(facts.DISPUTE, NOON, 3), True, "high"),
        ("churn_spike", CANCELED + counted(facts.CANCELED, NOON, 7), False, "high"),
        ("churn_spike", CANCELED + counted(facts.CANCELED, NOON, 8), True, "high"),
        ("churn_spike", CANCELED + counted(facts.CANCELED, NOON, 22), True, "critical"),
    ],
)
def test_the_limits_worked_by_hand_are_the_detectors_own(
    name: str, buckets: list[Bucket], breached: bool, severity: str
) -> None:
    verdict = judge(name, buckets)
    assert (verdict.breached, verdict.severity) == (breached, severity)


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
