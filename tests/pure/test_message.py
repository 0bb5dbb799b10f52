"""What a message says, and what never stands in one."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billingwatch.model import OWN, Incident, Money, Reason, Tenant
from detectors.contributors import Contributor
from notify import message, wording
from notify.link import linker
from notify.telling import Linker, Message, Telling
from notify.template import SHIPPED, Templates
from tests.pure.messages import AT, CARD_LIKE, incident


def shared(dimension: str, value: str, count: int, total: int, usual: float | None = None) -> dict[str, Any]:
    """A contributor as an incident's evidence holds it."""
    found = Contributor(dimension, value, count, total, count / total, usual)
    held: dict[str, Any] = msgspec.to_builtins(found)
    return held


def told(
    about: Incident, reason: Reason = "first", zone: tzinfo = UTC, told: float | None = None, **options: Any
) -> Message:
    """The message about one incident, without links unless asked for."""
    telling = Telling(incident=about, reason=reason, told=told, attached=options.pop("attached", ()))
    return message.compose([telling], AT, zone, **options)


FIRST = "First: undo what was changed just before; see status.stripe.com; look what those that fail share."
FAILED = "https://dashboard.stripe.com/payments?status%5B0%5D=failed"

MESSAGES: list[tuple[str, Incident, Reason, float | None, str, list[str]]] = [
    (
        "first",
        incident(),
        "first",
        None,
        "CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            "At risk: 1,823.00 USD (7,292.00 USD an hour), 31 customers",
            FIRST,
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "yen, dinars and dollars are told apart, test mode is marked, one customer is one",
        incident(
            tenant=Tenant("acct_1NvK3f", False),
            detector="surge",
            metric="refund.created",
            severity="high",
            observed=12,
            expected=1.1,
            why="12 refunds in 1 h; usually 1.1",
            at_risk=(Money(5000, "jpy"), Money(1250, "kwd"), Money(99, "usd"), Money(0, "eur")),
            customers=1,
            scope="price_1Nv",
        ),
        "first",
        None,
        "HIGH: surge of refunds on acct_1NvK3f (TEST MODE): 12, usually 1.1",
        [
            "12 refunds in 1 h; usually 1.1",
            "Since 14:05 UTC (2 h 5 min)",
            "Concerns price_1Nv",
            "At risk: 5,000 JPY + 1.250 KWD + 0.99 USD (20,000 JPY + 5.000 KWD + 3.96 USD an hour), 1 customer",
            "In Stripe: https://dashboard.stripe.com/acct_1NvK3f/test/payments?status%5B0%5D=refunded",
        ],
    ),
    (
        "worse says from and to",
        incident(at_risk=(), customers=0),
        "worse",
        0.4,
        "WORSE, CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Worse: from 40 % to 71 %",
            "Since 14:05 UTC (2 h 5 min)",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "worse without what was told before",
        incident(at_risk=(), customers=0),
        "worse",
        None,
        "WORSE, CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Worse: now 71 %",
            "Since 14:05 UTC (2 h 5 min)",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "repeat",
        incident(severity="medium", customers=0),
        "repeat",
        None,
        "STILL OPEN, MEDIUM: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            "Nobody has acknowledged it yet.",
            "At risk: 1,823.00 USD (7,292.00 USD an hour)",
            FIRST,
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "resolved says how long, peak and total",
        incident(state="resolved", resolved_at=datetime(2026, 3, 2, 15, 35, tzinfo=UTC)),
        "resolved",
        None,
        "RESOLVED: payments failing on default: peak 74 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Over after 1 h 30 min: 14:05 UTC to 15:35 UTC, peak 74 %",
            "In all: 1,823.00 USD, 31 customers",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "what is escalated says to whom it came and why",
        incident(at_risk=(), customers=0),
        "escalate",
        None,
        "ESCALATED, CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            "Nobody has acknowledged it for 2 h 2 min, so you are told, too.",
            FIRST,
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "what changed just before, and examples to look at",
        incident(
            tenant=Tenant("acct_9", False),
            at_risk=(),
            customers=0,
            evidence={
                "changes": [
                    {"at": 1772459580, "what": "deploy", "name": "v2.31", "how": ""},
                    {"at": 1772456700, "what": "coupon", "name": "SPRING", "how": "created"},
                ],
                "objects": [{"kind": "payment", "id": "ch_3Nv"}, {"kind": "payment", "id": "../x"}],
            },
        ),
        "first",
        None,
        "CRITICAL: payments failing on acct_9 (TEST MODE): 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            'Just before: deploy "v2.31" 12 min earlier; coupon SPRING created 1 h earlier',
            "Since 14:05 UTC (2 h 5 min)",
            FIRST,
            "See payment: https://dashboard.stripe.com/acct_9/test/payments/ch_3Nv",
            "In Stripe: https://dashboard.stripe.com/acct_9/test/payments?status%5B0%5D=failed",
        ],
    ),
    (
        "what is about ourselves has words of its own and nothing to do with Stripe",
        incident(
            tenant=OWN,
            detector="channel_broken",
            metric="channel_broken",
            scope="mail",
            severity="high",
            at_risk=(),
            customers=0,
            why="channel mail: E-Mail: SMTP 535; trying again is of no use.",
        ),
        "first",
        None,
        "HIGH: channel mail is broken",
        ["channel mail: E-Mail: SMTP 535; trying again is of no use.", "Since 14:05 UTC (2 h 5 min)"],
    ),
    (
        "a silence is told by its length",
        incident(
            detector="webhook_silence", metric="any", observed=0, expected=41, why="nothing since 14:05", at_risk=()
        ),
        "first",
        None,
        "CRITICAL: no webhooks from Stripe on default: for 2 h 5 min",
        [
            "nothing since 14:05",
            "Since 14:05 UTC (2 h 5 min)",
            "At risk: 31 customers",
            "First: see in Stripe whether the endpoint is enabled and what it answered; try it from outside.",
            "In Stripe: https://dashboard.stripe.com/events",
        ],
    ),
    (
        "a test says so first",
        incident(severity="low", at_risk=(), customers=0),
        "test",
        None,
        "TEST, LOW: payments failing on default: 71 %, usually 6 %",
        [
            "This is a test: nothing is wrong.",
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "what the excess has in common stands behind the sentence",
        incident(
            evidence={
                "contributors": [
                    shared("decline code", "do_not_honor", 28, 31),
                    shared("card brand", "visa", 26, 31, usual=0.41),
                ]
            },
        ),
        "first",
        None,
        "CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Mostly: decline code do_not_honor (28 of 31), card brand visa (26 of 31; else 41 %)",
            "Since 14:05 UTC (2 h 5 min)",
            "At risk: 1,823.00 USD (7,292.00 USD an hour), 31 customers",
            FIRST,
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "what comes back says so, since it is told as the first time",
        incident(at_risk=(), customers=0),
        "first",
        0.4,
        "CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "It was over, and has come back.",
            "Since 14:05 UTC (2 h 5 min)",
            FIRST,
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "the lowest of a drop is its worst, and money has the decimals of its currency",
        incident(
            detector="revenue_drop",
            metric="revenue",
            scope="kwd",
            observed=45_000.2,
            expected=912_500.0,
            peak=45_000.2,
            why="45.000 KWD from checkouts in 3 h, normally 700.000 KWD to 1,100.000 KWD",
            at_risk=(Money(867500, "kwd"),),
            customers=0,
            state="resolved",
            resolved_at=datetime(2026, 3, 2, 15, 35, tzinfo=UTC),
        ),
        "resolved",
        None,
        "RESOLVED: revenue drop on default: lowest 45.000 KWD",
        [
            "45.000 KWD from checkouts in 3 h, normally 700.000 KWD to 1,100.000 KWD",
            "Over after 1 h 30 min: 14:05 UTC to 15:35 UTC, lowest 45.000 KWD",
            "In all: 867.500 KWD",
            "In Stripe: https://dashboard.stripe.com/payments",
        ],
    ),
    (
        "a share is a share for the detector of shares alone",
        incident(detector="refund_rate", metric="refund", observed=12, expected=1.1, at_risk=(), customers=0),
        "worse",
        6.0,
        "WORSE, CRITICAL: refund rate of refunds on default: 12, usually 1.1",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Worse: from 6 to 12",
            "Since 14:05 UTC (2 h 5 min)",
            "In Stripe: https://dashboard.stripe.com/payments?status%5B0%5D=refunded",
        ],
    ),
    (
        "no number where the detector has none",
        incident(detector="surge", metric="dispute.created", observed=float("inf"), at_risk=(), customers=0),
        "first",
        None,
        "CRITICAL: surge of disputes on default",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            "In Stripe: https://dashboard.stripe.com/disputes",
        ],
    ),
]


@pytest.mark.parametrize(
    ("about", "reason", "before", "title", "lines"),
    [case[1:] for case in MESSAGES],
    ids=[case[0] for case in MESSAGES],
)
def test_message(about: Incident, reason: Reason, before: float | None, title: str, lines: list[str]) -> None:
    composed = told(about, reason, told=before)
    assert composed.title == title
    assert composed.text.splitlines() == lines


# (detector, currency, observed, expected, what the title says)
MONEY = [
    ("revenue_drop", "usd", 120_000.4, 450_050.0, "1,200.00 USD, usually 4,500.50 USD"),
    ("revenue_drop", "jpy", 5_000.0, 1_250_000.0, "5,000 JPY, usually 1,250,000 JPY"),
    ("revenue_drop", "kwd", 0.0, 912_500.0, "0.000 KWD, usually 912.500 KWD"),
    ("mrr_drop", "eur", 90_000.0, 4_510.0, "900.00 EUR, usually 45.10 EUR"),
    ("large_refunds", "jpy", 90_000.0, 4_510.0, "90,000 JPY, usually 4,510 JPY"),
]


@pytest.mark.parametrize(("detector", "currency", "observed", "expected", "figure"), MONEY)
def test_money_in_a_title_has_the_decimals_of_its_currency(
    detector: str, currency: str, observed: float, expected: float, figure: str
) -> None:
    about = incident(detector=detector, metric="revenue", scope=currency, observed=observed, expected=expected)
    composed = told(about)
    assert composed.title.endswith(f" on default: {figure}")
    assert "Concerns" not in composed.text


def test_many_long_names_of_contributors_are_cut() -> None:
    long = [shared("product", f"prod_{'x' * 200}", 12_345, 23_456, usual=0.123) for _ in range(3)]
    body = told(incident(evidence={"contributors": long})).text
    (line,) = [line for line in body.splitlines() if line.startswith("Mostly: ")]
    assert len(line) == wording.MOSTLY_LENGTH
    assert line.endswith("…")
    assert "(12,345 of 23,456; else 12 %)" in line


def test_times_are_local_and_carry_their_date_on_another_day() -> None:
    body = told(incident(), zone=ZoneInfo("Asia/Tokyo")).text
    assert "Since 2026-03-02 23:05 JST (2 h 5 min)" in body  # it is 01:10 on the 3rd there
    assert "Since 15:05 CET" in told(incident(), zone=ZoneInfo("Europe/Berlin")).text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (90061, "1 d 1 h"),
    ],
)
def test_duration_in_words(seconds: int, words: str) -> None:
    assert wording.spell(timedelta(seconds=seconds)) == words


def test_more_currencies_than_a_phone_shows_are_counted() -> None:
    money = tuple(Money(100, currency) for currency in ("aud", "cad", "eur", "gbp", "usd", "sek"))
    body = told(incident(at_risk=money, customers=0)).text
    assert "At risk: 1.00 AUD + 1.00 CAD + 1.00 EUR + 1.00 GBP and 2 more currencies" in body


@pytest.mark.parametrize(
    ("metric", "page"),
    [
        ("payment.failed", "payments?status%5B0%5D=failed"),
        ("fail_first", "payments?status%5B0%5D=failed"),
        ("payment.succeeded", "payments"),
        ("subscription.canceled", "subscriptions?status=canceled"),
        ("dispute", "disputes"),
        ("payout.failed", "payouts"),
        ("something new", "events"),
    ],
)
def test_link_lists_what_the_metric_counts(metric: str, page: str) -> None:
    assert wording.link(Tenant("default", True), metric) == f"https://dashboard.stripe.com/{page}"
    assert wording.link(Tenant("acct_9", False), metric) == f"https://dashboard.stripe.com/acct_9/test/{page}"


def test_account_that_is_no_account_id_stays_out_of_the_link() -> None:
    assert wording.link(Tenant("acct_1/../../login?x=", True), "refund").startswith(
        "https://dashboard.stripe.com/payments"
    )


@pytest.mark.parametrize("reason", ["first", "repeat", "worse", "escalate", "resolved", "test"])
@given(
    before=st.text(max_size=200),
    local=st.from_regex(r"[a-z0-9._+-]{1,20}", fullmatch=True),
    card=st.from_regex(r"\d{4}([ .-]?)\d{4}\1\d{4}\1\d{4}", fullmatch=True),
    place=st.sampled_from(["why", "scope", "account", "detector", "metric", "contributor"]),
)
@settings(max_examples=40, deadline=None)
def test_no_address_and_no_card_number_stands_in_a_message(
    reason: Reason, before: str, local: str, card: str, place: str
) -> None:
    text = f"{before} {local}@shop.example, {card}"
    changes: dict[str, Any] = {place: text}
    if place == "account":
        changes = {"tenant": Tenant(text, True)}
    if place == "contributor":
        changes = {"evidence": {"contributors": [shared("price", text, 1, 1)] * 3}}
    composed = told(incident(**changes), reason)
    said = "\n".join((composed.title, composed.text, composed.markdown, composed.html))
    assert f"{local}@" not in said
    assert card not in said
    assert not CARD_LIKE.search(re.sub(r"[ .-]", "", composed.title + composed.text))
    assert "\n" not in composed.title
    assert len(composed.title) < 250
    assert len(composed.text) < 800


# --- several, summaries, links, forms --------------------------------------------------------------------------------

BASE = "https://bw.example"
LINKER = linker(BASE, b"key", "nonce", AT)


def test_several_incidents_are_one_message_named_by_the_worst() -> None:
    calm = incident(id=2, detector="churn_spike", metric="subscription.canceled", severity="medium", observed=7)
    both = message.compose(
        [Telling(incident=calm, reason="first"), Telling(incident=incident(id=1), reason="worse")], AT
    )
    assert both.title == "WORSE, CRITICAL: payments failing on default: 71 %, usually 6 % (+1 more)"
    first, second = both.text.split("\n\n")
    assert first.startswith("WORSE, CRITICAL: payments failing on default")
    assert second.startswith("MEDIUM: cancellation spike on default: 7")
    assert both.html.count("border-left") == 2


def test_what_is_not_told_on_its_own_stands_in_the_message_of_its_cause() -> None:
    drop = incident(detector="volume_drop", metric="payment.succeeded")
    assert "Explains: fewer payments than usual on default" in told(incident(), attached=(drop,)).text
    many = told(incident(), attached=(drop,) * 5).text
    assert many.count("fewer payments than usual on default") == 3
    assert "and 2 more" in many


def test_a_drill_and_a_repeat_say_so() -> None:
    composed = told(incident(), drill=True, repeated=True)
    assert composed.title.startswith("DRILL, CRITICAL: payments failing")
    assert composed.text.startswith("This is a drill: nothing is wrong.\n")
    for form in (composed.text, composed.markdown, composed.html):
        assert "This may have reached you already" in form


def test_answers_are_offered_in_every_form_and_one_address_is_enough_for_plain_text() -> None:
    composed = told(incident(id=12), linker=LINKER)
    assert composed.text.count(BASE) == 1
    assert "\nAnswer: https://bw.example/answer/" in composed.text
    for act in ("Acknowledge", "Snooze 1 h", "Snooze 1 day", "Expected", "False alarm"):
        assert f"[{act}]({BASE}/answer/" in composed.markdown
        assert f">{act}</a>" in composed.html
    assert BASE not in "".join((told(incident()).text, told(incident()).markdown, told(incident()).html))


def test_of_what_is_over_there_is_nothing_to_answer_but_details() -> None:
    over = told(incident(id=12, state="resolved", resolved_at=AT), "resolved", linker=LINKER)
    assert "Acknowledge" not in over.html
    assert ">Details</a>" in over.html


@given(st.text(st.characters(codec="utf-8"), max_size=120))
def test_html_and_markdown_are_escaped(text: str) -> None:
    composed = told(incident(why=f"<script>{text}</script> [x](javascript:1) *b*"), linker=LINKER)
    assert "<script" not in composed.html
    assert "[x](javascript" not in composed.markdown
    assert re.search(r"(?<!\\)\*b(?<!\\)\*", composed.markdown) is None
    assert "http" not in re.sub(r'href="[^"]+"', "", composed.html)  # nothing is loaded from elsewhere


def test_a_summary_names_every_incident_and_tells_the_worst() -> None:
    crowd = [
        Telling(
            incident=incident(
                id=number,
                tenant=Tenant(f"acct_{number:04}", True),
                severity="critical" if number == 77 else "low",
                detector="refund_spike" if number % 2 else "churn_spike",
                at_risk=(Money(number, "usd"),),
            ),
            reason="first",
        )
        for number in range(1, 101)
    ]
    found = message.summarise(crowd, AT, linker=LINKER)
    assert found.title == "100 more incidents on 100 accounts, worst CRITICAL"
    assert "cancellation spike: 50, refund spike: 50" in found.text
    assert "At risk in all: 50.50 USD" in found.text
    assert found.text.index("77. CRITICAL: refund spike on acct_0077") < found.text.index("100. LOW")
    assert [number for number in range(1, 101) if f"acct_{number:04}" not in found.html] == []
    named = {*re.findall(r"acct_\d{4}", found.text)}
    assert f"and {100 - len(named)} more: billingwatch incidents list --open" in found.text
    assert len(named) > 50


@pytest.mark.parametrize("links", [None, LINKER])
def test_a_summary_of_a_thousand_fits_a_chat_and_says_how_many_it_does_not_name(links: Linker | None) -> None:
    crowd = [
        Telling(incident=incident(id=n, tenant=Tenant(f"acct_{n:016}", True)), reason="first") for n in range(1000)
    ]
    found = message.summarise(crowd, AT, linker=links)
    assert max(len(found.text), len(found.markdown)) <= message.SUMMARY_LENGTH
    assert max(map(len, found.text.splitlines())) < 150  # whoever cuts it leaves out whole lines
    shown = len(re.findall(r"acct_\d{16}", found.text))
    assert f"and {1000 - shown} more: billingwatch incidents list --open" in found.text
    assert len(re.findall(r"acct_\d{16}", found.html)) >= 1000


def test_what_is_over_is_marked_in_a_summary() -> None:
    crowd = [Telling(incident=incident(id=n), reason="first") for n in range(5)]
    over = incident(id=77, severity="low", state="resolved", resolved_at=AT)
    text = message.summarise([*crowd, Telling(incident=over, reason="resolved")], AT).text
    assert text.endswith("\n77 failure_rate default (over)")


@pytest.mark.parametrize("reason", ["worse", "resolved"])
def test_a_channel_named_like_a_currency_is_no_money(reason: Reason) -> None:
    """Every channel may have a name of three letters; its numbers are tries that failed, which its sentence tells."""
    about = incident(
        tenant=OWN, detector="channel_broken", metric="channel_broken", scope="ops", observed=4, at_risk=(), customers=0
    )
    composed = told(msgspec.structs.replace(about, resolved_at=AT), reason, told=3)
    assert "OPS" not in composed.title + composed.text
    assert "peak" not in composed.text


# --- templates of one's own ------------------------------------------------------------------------------------------


def test_a_template_of_ones_own_is_used_and_the_others_are_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "alert.txt").write_text("{% for each in incidents %}!! {{ each.title }} / {{ each.cost }}{% endfor %}")
    composed = told(incident(), templates=Templates(tmp_path))
    assert composed.text == (
        "!! CRITICAL: payments failing on default: 71 %, usually 6 % / "
        "At risk: 1,823.00 USD (7,292.00 USD an hour), 31 customers"
    )
    assert composed.html == told(incident()).html


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{{ nothing }}", "alert.txt: UndefinedError: 'nothing' is undefined"),
        ("{% for each in", "alert.txt: TemplateSyntaxError: unexpected 'end of template', line 1"),
        ("{{ incidents[0].__class__.__mro__ }}", "alert.txt: SecurityError"),
        ("{{ 1 / 0 }}", "alert.txt: ZeroDivisionError"),
    ],
)
def test_a_broken_template_costs_no_message_and_is_told(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "alert.txt").write_text(text)
    templates = Templates(tmp_path)
    assert told(incident(), templates=templates).text == told(incident()).text
    (found,) = message.problems(templates)
    assert found.startswith(fault)


def test_a_template_that_nothing_asks_for_is_told(tmp_path: Path) -> None:
    (tmp_path / "alerts.txt").write_text("x")
    assert message.problems(Templates(tmp_path))[0].startswith("alerts.txt: nothing has this name (names: alert.txt,")
    assert message.problems(Templates(tmp_path / "no")) == [f"{tmp_path / 'no'} is no folder"]
    assert message.problems(SHIPPED) == []
