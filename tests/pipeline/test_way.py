"""`billingwatch check --route`: the way of an alert, as people and programs see it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from billingwatch.cli import main

TOML = """
channels.ops = "json://127.0.0.1:1/"
channels.phone = {url = "json://127.0.0.1:1/secret", budget = 3}
channels.cto = "json://127.0.0.1:1/"

[[routes]]
severity = "critical"
channels = ["phone"]
continue = true
escalate = ["cto"]
escalate_after = "10m"

[route]
channels = ["ops"]
quiet = "22:00-07:00"

[accounts."acct_1"]
time_zone = "Asia/Tokyo"
"""


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "billingwatch.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BILLINGWATCH_CONFIG", raising=False)
    monkeypatch.delenv("BILLINGWATCH_APPRISE_URLS", raising=False)


def check(*words: str) -> Result:
    return CliRunner().invoke(main, ["check", "--at", "2026-11-25T15:00", *words])


def test_it_tells_every_route_that_is_asked_and_who_is_told_when() -> None:
    ran = check("--route", "severity=critical,detector=card_testing")
    assert ran.exit_code == 0
    assert ran.output.splitlines() == [
        "An alert of account default, livemode live, detector card_testing, severity critical, "
        "at Wed 2026-11-25 15:00 UTC:",
        "  routes.1: yes, routes.1 (severity critical); goes on",
        "  default route: yes, default route",
        "",
        "Is told to:",
        "  phone, by routes.1 (severity critical)",
        "    30s after it opened, with what opens meanwhile; updates every 5m; again after 4h without an answer; "
        "3 messages an hour",
        "    not acknowledged for 1 x 10m: cto",
        "  ops, by default route",
        "    30s after it opened, with what opens meanwhile; updates every 5m; again after 4h without an answer; "
        "20 messages an hour",
    ]


def test_quiet_hours_are_those_of_the_account() -> None:
    ran = check("--route", "account=acct_1", "--json")
    found = json.loads(ran.output)
    assert found["labels"]["severity"] == "medium"
    assert [each["matched"] for each in found["asked"]] == [False, True]
    (told,) = found["channels"]
    assert told["held_by_quiet_hours_until"] == "2026-11-26T07:00:00+09:00"
    assert (
        json.loads(check("--route", "account=acct_2", "--json").output)["channels"][0]["held_by_quiet_hours_until"]
        is None
    )


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("severty=high", "is severity meant?"),
        ("severity", "labels: account, livemode, detector, scope, severity"),
        ("severity=bad", "severity is one of low, medium, high, critical"),
        ("livemode=maybe", "livemode live or test"),
    ],
)
def test_wrong_labels_are_told(asked: str, hint: str) -> None:
    ran = check("--route", asked)
    assert ran.exit_code == 2
    assert hint in ran.output


def test_a_wrong_file_is_told_and_no_secret_is(tmp_path: Path) -> None:
    (tmp_path / "billingwatch.toml").write_text(TOML + '\n[alerts]\ngroup_wait = "soon"\n')
    ran = check("--route", "severity=low")
    assert ran.exit_code == 2
    assert "alerts.group_wait: 'soon' is no span" in ran.output
    assert "secret" not in ran.output
