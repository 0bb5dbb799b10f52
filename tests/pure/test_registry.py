"""What is judged of which account, by the sections of the TOML: values, precedence, every mistake with its place."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.model import Fact
from detectors import facts
from detectors.calendar import Calendar, public_holidays
from detectors.catalogue import DETECTORS, LINES, SILENCE, Source
from detectors.event import read_event
from detectors.facts import read_facts
from detectors.filter import Filter
from detectors.forecast import BACK
from detectors.registry import SHIPPED, THRESHOLDS, Plan, configure, settings
from detectors.rule import METRICS
from detectors.setting import span, spelled
from detectors.threshold import Threshold

PAYLOADS = Path(__file__).parents[1] / "payloads"


def planned(sections: dict[str, Any], account: str = "acct_1", livemode: bool = True) -> Plan:
    plans, wrong = configure(sections)
    assert wrong == {}
    return plans.of(account, livemode)


def values(plan: Plan, name: str) -> dict[str, Any]:
    return settings(plan.detectors[name])


def test_without_a_word_it_is_what_is_shipped() -> None:
    plans, wrong = configure({})
    assert plans.of("anyone") == Plan(dict(DETECTORS), SILENCE, LINES, Calendar(), BACK)
    assert plans.of("anyone", livemode=False) == plans.of("anyone")
    assert (plans.accounts, plans.filters, wrong) == ([], (), {})


@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_of_a_detector_can_be_changed_and_what_it_is_about_cannot(name: str) -> None:
    fields = msgspec.structs.asdict(SHIPPED[name])  # type: ignore[arg-type]
    numbers = {key for key, value in fields.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    assert numbers <= THRESHOLDS.keys()
    fixed = fields.keys() - THRESHOLDS.keys()
    _, wrong = configure({"detectors": {name: dict.fromkeys(fixed, "x")}})
    told = "cannot be changed: it is what the detector is about"
    assert wrong == {f"detectors.{name}.{key}": told for key in fixed}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_detector_set_to_its_own_values_is_the_one_that_is_shipped(name: str) -> None:
    plan = planned({"detectors": {name: {"enabled": True} | settings(SHIPPED[name])}})
    assert plan == configure({})[0].of("")


@pytest.mark.parametrize(
    ("name", "key", "value", "expected"),
    [
        ("refund_spike", "factor", 5, 5.0),
        ("refund_spike", "windows", ["1h", "15m"], ["15m", "1h"]),
        ("refund_spike", "windows", ["24h", "1d"], ["24h"]),
        ("churn_spike", "windows", ["3d"], ["3d"]),
        ("failure_rate", "points", 0.05, 0.05),
        ("failure_rate", "sensitivity", "strict", 10.0),
        ("failure_rate", "sensitivity", 9, 9.0),
        ("volume_drop", "factor", 0.5, 0.5),
        ("card_testing", "shift", -1.5, -1.5),
        ("webhook_lag", "score", 9.0, 9.0),
        ("mrr_drop", "severity", "critical", "critical"),
        ("dispute_spike", "days", 30, 30.0),
    ],
)
def test_a_threshold_is_changed_alone(name: str, key: str, value: object, expected: object) -> None:
    plan = planned({"detectors": {name: {key: value}}})
    assert values(plan, name) == settings(DETECTORS[name]) | {key: expected}
    assert {other: plan.detectors[other] for other in plan.detectors if other != name} == {
        other: DETECTORS[other] for other in DETECTORS if other != name
    }


def test_silence_has_its_own_thresholds_and_can_be_switched_off() -> None:
    silence = planned({"detectors": {"webhook_silence": {"least": 9, "settle": 1800}}}).silence
    assert silence == msgspec.structs.replace(SILENCE, least=9.0, settle=1800)
    assert planned({"detectors": {"webhook_silence": {"enabled": False}}}).silence is None


def test_a_detector_is_switched_off() -> None:
    assert planned({"detectors": {"churn_spike": {"enabled": False}}}).detectors.keys() == DETECTORS.keys() - {
        "churn_spike"
    }


def test_the_dial_turns_every_detector_that_has_it_but_those_that_are_set_by_themselves() -> None:
    plan = planned({"sensitivity": "quiet", "detectors": {"refund_spike": {"sensitivity": "strict"}}})
    found = {name: settings(each).get("sensitivity") for name, each in plan.detectors.items()}
    assert found == dict.fromkeys(DETECTORS, 8.0) | {"refund_spike": 10.0, "webhook_lag": None}


def test_what_is_said_of_an_account_wins_over_what_is_said_of_all() -> None:
    sections = {
        "sensitivity": "quiet",
        "time_zone": "Europe/Berlin",
        "holidays": "DE-BY",
        "detectors": {"refund_spike": {"factor": 3, "least": 9, "sensitivity": 9}, "churn_spike": {"enabled": False}},
        "accounts": {
            "acct_1": {
                "time_zone": "Asia/Tokyo",
                "holidays": "JP",
                "sensitivity": "notice",
                "detectors": {"refund_spike": {"factor": 4}, "churn_spike": {"enabled": True, "least": 7}},
            },
            "acct_2": {"holidays": ""},
        },
    }
    one, two, other = (planned(sections, account) for account in ("acct_1", "acct_2", "acct_3"))
    assert configure(sections)[0].accounts == ["acct_1", "acct_2"]
    assert one.calendar == Calendar("Asia/Tokyo", public_holidays("JP"), "JP")
    assert two.calendar == Calendar("Europe/Berlin")
    assert other.calendar == Calendar("Europe/Berlin", public_holidays("DE-BY"), "DE-BY")
    spikes = [values(plan, "refund_spike") for plan in (one, two, other)]
    assert [(each["factor"], each["least"], each["sensitivity"]) for each in spikes] == [
        (4.0, 9.0, 6.5),
        (3.0, 9.0, 9.0),
        (3.0, 9.0, 9.0),
    ]
    assert values(one, "churn_spike")["least"] == 7.0
    assert "churn_spike" not in other.detectors


# Rules


@pytest.mark.parametrize(
    ("table", "threshold", "source"),
    [
        ({}, {}, Source(("refund.created",))),
        (
            {"window": "3h", "past": "10d", "factor": 2, "plus": 0, "least": 4, "severity": "high"},
            {"window": 36, "past": 2880, "factor": 2.0, "plus": 0.0, "least": 4.0, "severity": "high"},
            Source(("refund.created",)),
        ),
        ({"compare": "below"}, {"compare": "below", "factor": 0.5, "plus": 0.0}, Source(("refund.created",))),
        (
            {"compare": "below", "factor": 0.2, "plus": 1},
            {"compare": "below", "factor": 0.2, "plus": 1.0},
            Source(("refund.created",)),
        ),
        ({"currency": "USD"}, {}, Source(("refund.created",), currency="usd")),
        (
            {"amounts": True, "currency": "jpy"},
            {"currency": "jpy"},
            Source(("refund.created",), currency="jpy", amounts=True),
        ),
        ({"metric": "payment.failed", "stratum": "retry"}, {}, Source(("payment.failed",), ("retry",))),
        (
            {"metric": "payment.failed", "stratum": ["checkout", "renewal"]},
            {},
            Source(("payment.failed",), ("checkout", "renewal")),
        ),
        ({"brand": "Visa"}, {}, Source(("rule.x",))),
        ({"brand": "visa", "amounts": True, "currency": "usd"}, {"currency": "usd"}, Source(("rule.x",), amounts=True)),
    ],
)
def test_a_rule_is_a_detector_on_a_line_of_its_own(
    table: dict[str, Any], threshold: dict[str, Any], source: Source
) -> None:
    plan = planned({"rules": {"x": {"metric": "refund.created"} | table}})
    assert plan.detectors["x"] == msgspec.structs.replace(Threshold("x", "rule.x"), **threshold)
    assert plan.lines["rule.x"] == source
    assert plan.lines.keys() == LINES.keys() | {"rule.x"}
    assert plan.detectors.keys() == DETECTORS.keys() | {"x"}


def test_what_rollups_do_not_tell_apart_is_counted_by_a_filter() -> None:
    table = {"metric": "payment.failed", "stratum": "checkout", "currency": "EUR", "brand": "VISA", "country": "de"}
    plans, wrong = configure(
        {"rules": {"x": table, "y": {"metric": "payment.failed"}, "z": table | {"enabled": False}}}
    )
    assert wrong == {}
    assert plans.filters == (Filter("x", "payment.failed", ("checkout",), "eur", "visa", "DE", ""),)
    assert plans.of("").lines["rule.x"].metrics == (plans.filters[0].counted,)


def test_a_rule_may_be_of_one_account_or_one_mode() -> None:
    rules = {
        "all": {"metric": "refund.created"},
        "one": {"metric": "refund.created", "account": "acct_1"},
        "live": {"metric": "refund.created", "livemode": True},
        "test": {"metric": "refund.created", "livemode": False},
        "off": {"metric": "refund.created", "enabled": False},
    }
    plans, wrong = configure({"rules": rules})
    assert wrong == {}
    found = {
        (account, livemode): plans.of(account, livemode).detectors.keys() - DETECTORS.keys()
        for account in ("acct_1", "acct_2")
        for livemode in (True, False)
    }
    assert found == {
        ("acct_1", True): {"all", "one", "live"},
        ("acct_1", False): {"all", "one", "test"},
        ("acct_2", True): {"all", "live"},
        ("acct_2", False): {"all", "test"},
    }


@pytest.mark.parametrize(
    ("window", "past", "hours"), [("1h", "7d", 169), ("1h", "1d", BACK), ("24h", "13d", 336), ("5m", "6d", 145)]
)
def test_as_many_hours_are_read_as_the_longest_rule_looks_back_on(window: str, past: str, hours: int) -> None:
    rule = {"metric": "refund.created", "window": window, "past": past}
    assert planned({"rules": {"x": rule}}).back == hours


def test_every_metric_of_the_facts_may_be_asked_for() -> None:
    named = {value for key, value in vars(facts).items() if key.isupper() and isinstance(value, str) and "." in value}
    assert named == METRICS.keys()


@pytest.mark.parametrize("path", sorted(PAYLOADS.glob("*.json")), ids=lambda path: path.stem)
def test_what_facts_tell_may_be_asked_for(path: Path) -> None:
    for fact in read_facts(read_event(path.read_bytes())):
        metric = fact.metric if isinstance(fact, Fact) else facts.REFUND
        told = {key for key in ("currency", "brand", "country", "price") if getattr(fact, key, "")}
        assert told <= set(METRICS[metric].tells)
        assert getattr(fact, "stratum", "") in ("", *METRICS[metric].strata)


# Mistakes


@pytest.mark.parametrize(
    ("sections", "place", "says"),
    [
        ({"sensitivity": "lout"}, "sensitivity", 'no sensitivity "lout" ("notice" (6.5), "page" (7.2), '),
        ({"sensitivity": "quite"}, "sensitivity", 'did you mean "quiet"?'),
        ({"sensitivity": 1}, "sensitivity", "1 does not do (3 to 50)"),
        ({"sensitivity": True}, "sensitivity", "expected a number, not true"),
        ({"sensitivity": float("nan")}, "sensitivity", "expected a number, not nan"),
        ({"time_zone": "Europe/Berln"}, "time_zone", 'no time zone "Europe/Berln" (did you mean "Europe/Berlin"?)'),
        ({"time_zone": "../etc"}, "time_zone", 'no time zone "../etc" (as Europe/Berlin)'),
        ({"time_zone": 1}, "time_zone", "no time zone 1 (as Europe/Berlin)"),
        ({"holidays": "Germany"}, "holidays", 'no country "Germany" (did you mean "DE"?)'),
        ({"holidays": "DE-XX"}, "holidays", 'DE has no part "XX" (there are BB, '),
        ({"holidays": ["DE"]}, "holidays", "a list does not do"),
        ({"detectors": 3}, "detectors", "expected sections, not 3 (as [detectors.NAME])"),
        ({"detectors": {"refunds": {}}}, "detectors.refunds", 'no such detector (did you mean "refund_spike"?)'),
        ({"detectors": {"zzz": {}}}, "detectors.zzz", "no such detector (known: failure_rate, card_testing, "),
        ({"detectors": {"mrr_drop": 3}}, "detectors.mrr_drop", "expected a section, not 3 (as [detectors.mrr_drop])"),
        ({"accounts": {"a": {"zone": "UTC"}}}, "accounts.a.zone", 'unknown key (did you mean "time_zone"?)'),
        ({"accounts": {"a": {"time_zone": "X"}}}, "accounts.a.time_zone", 'no time zone "X"'),
        ({"accounts": {"a": {"detectors": {"x": {}}}}}, "accounts.a.detectors.x", "no such detector"),
        ({"accounts": {"a": 1}}, "accounts.a", "expected a section, not 1 (as [accounts.a])"),
        ({"rules": {"mrr_drop": {}}}, "rules.mrr_drop", "is the name of a detector"),
    ],
)
def test_a_mistake_is_told_by_its_place_with_a_hint(sections: dict[str, Any], place: str, says: str) -> None:
    plans, wrong = configure(sections)
    assert wrong.keys() == {place}
    assert says in wrong[place]
    assert plans.of("a") == configure({})[0].of("a")


@pytest.mark.parametrize(
    ("name", "key", "value", "says"),
    [
        ("refund_spike", "factr", 5, 'unknown key (did you mean "factor"?)'),
        ("refund_spike", "colour", 5, "unknown key (known: "),
        ("refund_spike", "points", 0.1, "unknown key (known: "),
        ("refund_spike", "factor", "five", 'expected a number, not "five"'),
        ("refund_spike", "factor", 0.5, "0.5 does not do (1 to 1000)"),
        ("volume_drop", "factor", 1.5, "1.5 does not do (0 to 1)"),
        ("refund_spike", "least", -1, "-1 is below 0"),
        ("failure_rate", "points", 3, "3 does not do (0 to 1)"),
        ("refund_spike", "metric", "x", "unknown key"),
        ("refund_spike", "severity", "hi", '(did you mean "high"?)'),
        ("refund_spike", "severity", "dire", 'expected one of "low", "medium", "high", "critical"'),
        ("refund_spike", "enabled", 0, "expected one of true, false"),
        ("refund_spike", "windows", [], 'expected a list of spans (as ["15m", "1h", "3d"])'),
        ("refund_spike", "windows", "1h", 'expected a list of spans (as ["15m", "1h", "3d"])'),
        ("refund_spike", "windows", ["1h", 900], 'expected a span, not 900 (as "15m", "1h" or "3d")'),
        ("refund_spike", "windows", ["4d"], '"4d" does not do (multiples of 5 minutes, 3d at most)'),
        ("refund_spike", "windows", ["7m"], '"7m" does not do'),
        ("refund_spike", "windows", ["0h"], '"0h" does not do'),
        ("refund_spike", "windows", ["slack://token"], "expected a span, not an address"),
        ("webhook_lag", "sensitivity", "page", "unknown key"),
    ],
)
def test_a_threshold_that_is_wrong_keeps_what_is_shipped(name: str, key: str, value: object, says: str) -> None:
    plans, wrong = configure({"detectors": {name: {key: value}}})
    assert wrong.keys() == {f"detectors.{name}.{key}"}
    assert says in wrong[f"detectors.{name}.{key}"]
    assert plans.of("") == configure({})[0].of("")


@pytest.mark.parametrize(
    ("table", "key", "says"),
    [
        ({"metric": None}, "metric", "no metric a date"),
        ({"metric": "payments.failed"}, "metric", 'no metric "payments.failed" (did you mean "payment.failed"?)'),
        ({"metric": "zzz"}, "metric", "(known: payment.succeeded, "),
        ({"stratum": "checkout"}, "stratum", 'refund.created has no stratum "checkout" (it has none)'),
        ({"metric": "payment.failed", "stratum": "checkot"}, "stratum", '(did you mean "checkout"?)'),
        ({"metric": "payment.failed", "stratum": ["zz"]}, "stratum", "(there are checkout, renewal, retry)"),
        ({"stratum": 3}, "stratum", "expected a text or a list of them"),
        ({"window": 3600}, "window", "expected a span, not 3600"),
        ({"window": "2d", "past": "1d"}, "past", "is shorter than the window (2d at least)"),
        ({"past": "14d"}, "past", "reaches too far back (with the window 14d at most)"),
        ({"past": "15d"}, "past", '"15d" does not do (multiples of 5 minutes, 14d at most)'),
        ({"compare": "over"}, "compare", 'expected one of "above", "below", not "over"'),
        ({"compare": "below", "factor": 3}, "factor", "is always below it"),
        ({"amounts": True}, "amounts", "needs a currency: two are never added"),
        ({"metric": "trial.lapsed", "currency": "usd"}, "currency", "(they tell price)"),
        ({"metric": "dispute.created", "country": "DE"}, "country", "(they tell currency, brand)"),
        ({"metric": "object.any", "price": "price_1"}, "price", "(they tell nothing of the kind)"),
        ({"currency": "dollars"}, "currency", '"dollars" does not do (as "usd", or "" for any)'),
        ({"account": "https://x"}, "account", "an address does not do"),
        ({"livemode": "yes"}, "livemode", 'expected one of true, false, "both"'),
        ({"livemode": 1}, "livemode", 'expected one of true, false, "both"'),
        ({"filter": 1}, "filter", "unknown key"),
    ],
)
def test_a_rule_with_a_mistake_is_no_rule(table: dict[str, Any], key: str, says: str) -> None:
    plans, wrong = configure({"rules": {"x": {"metric": "refund.created"} | table}})
    assert wrong.keys() == {f"rules.x.{key}"}
    assert says in wrong[f"rules.x.{key}"]
    assert plans == configure({})[0]


@pytest.mark.parametrize(
    ("name", "table", "says"),
    [
        ("x", {}, 'names no metric (as metric = "refund.created")'),
        ("a b", {"metric": "refund.created"}, "no name for a rule"),
        ("a.b", {"metric": "refund.created"}, "no name for a rule"),
    ],
)
def test_a_rule_needs_a_name_and_a_metric(name: str, table: dict[str, Any], says: str) -> None:
    _, wrong = configure({"rules": {name: table}})
    assert says in wrong[f"rules.{name}"]


def test_every_mistake_is_told_at_once() -> None:
    _, wrong = configure(
        {
            "sensitivity": 0,
            "time_zone": "Mars",
            "detectors": {"mrr_drop": {"factor": 0, "least": "x"}, "psychic": {}},
            "rules": {"x": {"metric": "x", "window": "x"}},
            "accounts": {"a": {"holidays": "XX"}},
        }
    )
    assert wrong.keys() == {
        "sensitivity",
        "time_zone",
        "detectors.mrr_drop.factor",
        "detectors.mrr_drop.least",
        "detectors.psychic",
        "rules.x.metric",
        "rules.x.window",
        "accounts.a.holidays",
    }


ANY_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1h", "UTC", "DE"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["x", "rules", "mrr_drop", "metric", "factor", "window"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["sensitivity", "time_zone", "detectors", "rules", "accounts"]), ANY_VALUE))
def test_whatever_stands_in_the_file_it_is_judged_by_something(sections: dict[str, Any]) -> None:
    plans, _ = configure(sections)
    assert plans.of("x").detectors


@given(st.integers(1, 4032))
def test_a_span_is_read_as_it_is_spelled(bins: int) -> None:
    assert span(4032)(spelled(bins)) == bins
