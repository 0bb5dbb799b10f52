"""Silences as people make, list and end them, and what of them is refused as a slip of the pen."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from billingwatch.cli.silence import read_matchers
from billingwatch.store import accounts, audit, silences
from billingwatch.store.accounts import Account
from tests.factories import LIVE, NOON
from tests.pipeline import command
from tests.pipeline.command import isolate

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> None:
    """This test's database, no file in the working folder, and a wide terminal."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "200")


run, succeed = partial(command.run, "silence"), partial(command.succeed, "silence")


def told(*arguments: str) -> Any:
    return json.loads(succeed(*arguments, "--json"))


def test_nothing_is_silenced_at_first() -> None:
    assert succeed() == succeed("list") == "Nothing is silenced.\n"
    assert told("list") == []


def test_silence_is_added_listed_audited_and_ended(conn: Connection) -> None:
    made = told("add", "account=acct_*", "detector=refund_spike", "--for", "2h", "--why", "load test", "--who", "ada")
    (stored,) = silences.read_all(conn)
    assert stored.matchers == {"account": "acct_*", "detector": "refund_spike"}
    assert stored.ends_at is not None
    assert stored.ends_at - stored.starts_at == 2 * HOUR
    assert abs(stored.starts_at - datetime.now(UTC)) < MINUTE
    assert (made["id"], made["state"], made["why"], made["who"]) == (stored.id, "current", "load test", "ada")
    listed = succeed("list")
    for part in ("current", "account=acct_*, detector=refund_spike", "ada", "load test"):
        assert part in listed
    assert succeed("end", str(stored.id), "--who", "bob") == f"Silence {stored.id} is over.\n"
    assert (succeed("list"), told("list")) == ("Nothing is silenced.\n", [])
    assert [(each["id"], each["state"]) for each in told("list", "--all")] == [(stored.id, "over")]
    done = [(row["who"], row["act"], row["subject"]) for row in reversed(audit.read(conn))]
    assert done == [
        ("ada", "silence.add", f"silence {stored.id}"),
        ("bob", "silence.end", f"silence {stored.id}"),
    ]


def test_future_and_recurring_ones_are_listed_as_such() -> None:
    told("add", "severity=low", "--from", "+1d", "--until", "+2d")
    told("add", "livemode=false", "--weekly", "sat-sun, mon-fri 22:00-06:00")
    listed = told("list")
    assert [(each["state"], each["until"] is None, each["recurs"]) for each in listed] == [
        ("recurring", True, "sat-sun, mon-fri 22:00-06:00"),
        ("future", False, ""),
    ]
    assert listed[0]["matchers"] == {"livemode": "test"}


def test_silence_that_is_over_or_never_was_is_not_ended(conn: Connection) -> None:
    first, second = (told("add", f"account=acct_{n}", "--for", "1h")["id"] for n in (1, 2))
    succeed("end", str(first))
    result = run("end", str(first), str(second), "404")
    assert result.exit_code == 1
    assert result.stdout == f"Silence {second} is over.\n"
    assert result.stderr == "".join(f"There is no silence {id_} that is not over.\n" for id_ in (first, 404))
    assert len(audit.read(conn)) == 4


# what is refused, and what the refusal says
SLIPS: list[tuple[list[str], str]] = [
    (["acount=x", "--for", "1h"], 'did you mean "account"?'),
    (["account", "--for", "1h"], "is no LABEL=VALUE"),
    (["account=", "--for", "1h"], "is no LABEL=VALUE"),
    (["account=a", "account=b", "--for", "1h"], "named twice"),
    (["severity=hihg", "--for", "1h"], 'did you mean "high"?'),
    (["livemode=prod", "--for", "1h"], "no livemode 'prod'"),
    (["incident=first", "--for", "1h"], "incident is a number"),
    (["account=a"], "one of --for, --until, --weekly"),
    (["account=a", "--for", "1h", "--until", "+2h"], "not both"),
    (["account=a", "--for", "soon"], "'soon' is no span"),
    (["account=a", "--until", "-1h"], "before it holds"),
    (["account=a", "--from", "+2h", "--until", "+1h"], "before it holds"),
    (["account=a", "--weekly", "someday"], "--weekly: "),
    (["account=a", "--for", "1h", "--why", "x" * 201], "200 characters"),
]


@pytest.mark.parametrize(("arguments", "says"), SLIPS)
def test_what_makes_no_sense_is_refused(conn: Connection, arguments: list[str], says: str) -> None:
    result = run("add", *arguments)
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
    assert (silences.read_all(conn), audit.read(conn)) == ([], [])


def test_patterns_are_taken_as_they_are() -> None:
    said = ["severity=>=high", "livemode=*", "account=!acct_1", "detector=*_drop", "scope=price_?", "incident=12"]
    assert read_matchers(said) == {
        "severity": ">=high",
        "livemode": "*",
        "account": "!acct_1",
        "detector": "*_drop",
        "scope": "price_?",
        "incident": "12",
    }


@pytest.mark.parametrize(
    ("matcher", "warning"),
    [
        ("account=acct_9", "No event of an account acct_9 has come yet. Events came of: default.\n"),
        ("account=acct_*", "No event of an account acct_* has come yet. Events came of: default.\n"),
        ("detector=refnd_spike", 'No detector or rule is called refnd_spike (did you mean "refund_spike"?).\n'),
        ("account=def*", ""),
        ("account=!acct_9", ""),
        ("account=billingwatch", ""),
        ("detector=*_spike", ""),
        ("detector=pipeline_lag", ""),
        ("detector=channel_broken", ""),
        ("detector=many", ""),
    ],
)
def test_silence_of_what_nobody_knows_is_made_with_a_warning(conn: Connection, matcher: str, warning: str) -> None:
    Path("billingwatch.toml").write_text('[rules.many]\nmetric = "refund.created"\n')
    accounts.touch(conn, Account(LIVE, NOON, NOON, NOON))
    result = run("add", matcher, "--for", "1h")
    assert (result.exit_code, result.stderr) == (0, warning)
    assert len(silences.read_all(conn)) == 1
