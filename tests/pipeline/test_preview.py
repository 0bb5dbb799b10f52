"""`notify preview`: the message as it would come, with the templates in force, without a server for the examples."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from psycopg import Connection

from billingwatch.model import Money, Tenant
from billingwatch.store import incidents
from notify.example import EXAMPLES
from notify.wording import ACTS
from tests.factories import NOON, incident
from tests.pipeline.command import isolate, run, succeed


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    isolate(monkeypatch, tmp_path)
    return tmp_path


def test_without_an_incident_the_five_worst_are_shown_and_no_server_is_asked() -> None:
    shown = succeed("notify", "preview")
    titles = [part.strip().splitlines()[0] for part in re.split(r"-{72}", shown)]
    assert [title.partition(" on ")[0] for title in titles] == [
        "CRITICAL: card testing",
        "CRITICAL: payments failing",
        "HIGH: duplicate charges",
        "CRITICAL: no webhooks from Stripe",
        "HIGH: MRR drop",
    ]
    assert 'Just before: deploy "v2.31" 12 min earlier' in shown
    assert re.search(r"At risk: 498,000 JPY\b.*, 16 customers", shown)


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize(
    ("reason", "title"),
    [
        ("first", ""),
        ("worse", "WORSE, "),
        ("repeat", "STILL OPEN, "),
        ("escalate", "ESCALATED, "),
        ("resolved", "RESOLVED: "),
    ],
)
def test_each_reason_in_each_form(example: str, reason: str, title: str) -> None:
    text, markdown, html = (
        succeed("notify", "preview", "--example", example, "--reason", reason, "--format", form)
        for form in ("text", "markdown", "html")
    )
    for shown in (text, markdown, html):
        assert shown.startswith(title)
    offered = reason != "resolved"
    assert all((f"[{label}](https://" in markdown) == offered for label in ACTS.values())
    assert all((f">{label}</a>" in html) == offered for label in ACTS.values())
    why = EXAMPLES[example].why
    assert why in text
    assert why in html


def test_an_incident_of_the_store_in_its_accounts_time(
    monkeypatch: pytest.MonkeyPatch, folder: Path, conn: Connection, database_url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    (folder / "billingwatch.toml").write_text('[accounts.acct_7]\ntime_zone = "Asia/Tokyo"\n')
    id_ = incidents.open_incident(
        conn,
        incident(
            tenant=Tenant("acct_7", True),
            at_risk=(Money(1250, "kwd"),),
            last_breach_at=NOON + timedelta(minutes=20),
        ),
    )
    conn.commit()
    shown = succeed("notify", "preview", str(id_))
    assert shown.startswith("HIGH: refund spike on acct_7: 12, usually 0.5\n\n12 refunds in the last hour")
    assert "Since 21:00 JST (20 min)" in shown
    assert "At risk: 1.250 KWD" in shown
    missing = run("notify", "preview", "999999")
    assert (missing.exit_code, missing.stderr) == (1, "There is no incident 999999.\n")


def test_a_summary_and_a_file(folder: Path) -> None:
    shown = succeed("notify", "preview", "--summary", "--format", "html", "-o", "summary.html")
    assert shown == "40 more incidents on 1 account, worst CRITICAL\nWritten to summary.html.\n"
    assert (folder / "summary.html").read_text().count("border-left") == 5


def test_a_template_of_ones_own_is_shown_and_a_broken_one_told(folder: Path) -> None:
    own = folder / "own"
    own.mkdir()
    (own / "alert.txt").write_text("{% for each in incidents %}woken by {{ each.title }}{% endfor %}")
    arguments = ("notify", "preview", "--example", "mrr_drop", "--templates", "own")
    assert "\n\nwoken by HIGH: MRR drop on" in succeed(*arguments)

    (own / "alert.txt").write_text("{% for each in incidents %}{{ each.titel }}{% endfor %}")
    broken = run(*arguments)
    assert broken.exit_code == 1
    assert "4,120.00 EUR of MRR lost in 24 h" in broken.stdout  # the shipped one stood in
    assert "alert.txt: UndefinedError" in broken.stderr

    (folder / "billingwatch.toml").write_text('[alerts]\ntemplates = "own"\n')
    assert run("notify", "preview").exit_code == 1
