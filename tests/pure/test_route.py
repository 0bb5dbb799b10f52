"""Which channels hear of what: one file of routes, thirty sets of labels; and what else routes can say."""

import tomllib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from notify.policy import Policy, configure
from notify.route import CONSOLE, UNROUTED, accepts, route, walk

NAMES = ("ops", "mail", "phone", "cto", "shop", "audit", "night")
POLICY_TOML = """
[intervals]
nights = "22:00-07:00"
office = {times = "mon-fri 09:00-18:00", zone = "America/New_York"}

[[routes]]
detector = ["channel_broken", "pipeline_lag", "worker_missing"]
channels = ["ops"]

[[routes]]
livemode = false
channels = ["audit"]

[[routes]]
severity = "critical"
channels = ["phone"]
escalate = ["cto"]
escalate_after = "10m"
continue = true

[[routes]]
account = "acct_shop*"
detector = "!webhook_*"
channels = ["shop"]

[[routes]]
severity = ">=high"
during = "nights"
channels = ["night"]

[[routes]]
detector = ["refund_spike", "dispute_spike"]
scope = "!renewal"
severity = ["low", "medium"]
during = "office"
channels = ["mail"]
continue = true

[route]
channels = ["ops", "mail"]
quiet = "nights"
"""


def policy(text: str = POLICY_TOML) -> Policy:
    found, wrong = configure(tomllib.loads(text), {name: (name,) for name in NAMES})
    assert wrong == {}
    return found


DAY = datetime(2026, 11, 25, 15, 0, tzinfo=UTC)  # a Wednesday, 10:00 in New York
NIGHT = datetime(2026, 11, 25, 23, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def chosen(at: datetime = DAY, **asked: str) -> list[str]:
    labels = {"account": "default", "livemode": "live", "detector": "failure_rate", "scope": "", "severity": "medium"}
    return [each.channel for each in route(labels | asked, policy().routes, at, BERLIN)]


@pytest.mark.parametrize(
    ("asked", "night", "channels"),
    [
        ({}, False, "ops mail"),
        ({"severity": "low"}, False, "ops mail"),
        ({"severity": "high"}, False, "ops mail"),
        ({"severity": "critical"}, False, "phone ops mail"),
        ({"severity": "high"}, True, "night"),
        ({"severity": "critical"}, True, "phone night"),
        ({"severity": "medium"}, True, "ops mail"),
        ({"livemode": "test"}, False, "audit"),
        ({"livemode": "test", "severity": "critical"}, False, "audit"),
        ({"livemode": "test", "severity": "critical"}, True, "audit"),
        ({"livemode": "test", "detector": "pipeline_lag"}, False, "ops"),
        ({"detector": "pipeline_lag", "severity": "critical"}, False, "ops"),
        ({"detector": "channel_broken", "scope": "ops"}, False, "ops"),
        ({"detector": "worker_missing"}, True, "ops"),
        ({"detector": "redis_high"}, False, "ops mail"),
        ({"account": "acct_shop"}, False, "shop"),
        ({"account": "acct_shop1"}, False, "shop"),
        ({"account": "acct_shop1", "severity": "critical"}, False, "phone shop"),
        ({"account": "acct_shop1", "severity": "critical"}, True, "phone shop"),
        ({"account": "acct_shop1", "detector": "webhook_silence"}, False, "ops mail"),
        ({"account": "acct_shop1", "detector": "webhook_lag", "severity": "critical"}, False, "phone ops mail"),
        ({"account": "acct_shop1", "detector": "webhook_lag", "severity": "high"}, True, "night"),
        ({"account": "acct_SHOP1"}, False, "ops mail"),
        ({"account": "my_acct_shop"}, False, "ops mail"),
        ({"detector": "refund_spike"}, False, "mail ops"),
        ({"detector": "refund_spike", "scope": "renewal"}, False, "ops mail"),
        ({"detector": "refund_spike", "scope": "checkout"}, False, "mail ops"),
        ({"detector": "refund_spike", "severity": "high"}, False, "ops mail"),
        ({"detector": "refund_spike"}, True, "ops mail"),
        ({"detector": "dispute_spike", "severity": "low"}, False, "mail ops"),
        ({"detector": "refund_spike_of_mine"}, False, "ops mail"),
        ({"account": "acct_shop1", "detector": "refund_spike"}, False, "shop"),
    ],
)
def test_who_is_told(asked: dict[str, str], night: bool, channels: str) -> None:
    assert chosen(NIGHT if night else DAY, **asked) == channels.split()


def test_the_reason_names_the_route_and_what_matched() -> None:
    labels = {"account": "default", "livemode": "live", "detector": "x", "scope": "", "severity": "critical"}
    found = route(labels, policy().routes, DAY, BERLIN)
    assert [each.reason for each in found] == ["routes.3 (severity critical)", "default route", "default route"]
    assert found[0].route.escalate == ("cto",)
    assert found[0].route.escalate_after == timedelta(minutes=10)


def test_the_way_ends_at_the_first_route_that_does_not_go_on() -> None:
    labels = {"account": "acct_shop", "livemode": "live", "detector": "x", "scope": "", "severity": "critical"}
    stops = walk(labels, policy().routes, DAY, BERLIN)
    assert [(each.route.name, each.matched) for each in stops] == [
        ("routes.1", False),
        ("routes.2", False),
        ("routes.3", True),
        ("routes.4", True),
    ]
    assert stops[0].why == "detector is x, not channel_broken or pipeline_lag or worker_missing"


def test_without_any_channel_the_console_hears_it() -> None:
    found, wrong = configure({}, {})
    assert wrong == {}
    assert [(each.channel, each.reason) for each in route({}, found.routes, DAY, UTC)] == [(CONSOLE, UNROUTED)]


def test_a_name_of_several_channels_is_all_of_them() -> None:
    found, wrong = configure({"route": {"channels": ["mail"]}}, {"mail": ("mail-1", "mail-2"), "ops": ("ops",)})
    assert (found.default.channels, wrong) == (("mail-1", "mail-2"), {})


@pytest.mark.parametrize(
    ("patterns", "value", "accepted"),
    [
        (("a",), "a", True),
        (("a", "b"), "b", True),
        (("a*",), "abc", True),
        (("!a*",), "abc", False),
        (("!a*",), "b", True),
        (("b", "!a"), "c", False),
        ((">=high",), "critical", True),
        ((">=high",), "medium", False),
        (("!>=high",), "medium", True),
        (("!>=high",), "high", False),
        (("",), "", True),
    ],
)
def test_patterns(patterns: tuple[str, ...], value: str, accepted: bool) -> None:
    assert accepts(patterns, value) is accepted


def test_what_is_said_of_all_alerts_holds_for_routes_that_say_nothing_else() -> None:
    text = """
    alerts = {group_wait = "5s", quiet = "sat-sun", repeat_interval = "1d"}
    routes = [{severity = "critical", channels = ["phone"], repeat_interval = "30m"}]
    """
    first, default = policy(text).routes
    assert (first.group_wait, first.repeat_interval) == (timedelta(seconds=5), timedelta(minutes=30))
    assert (default.group_wait, default.repeat_interval) == (timedelta(seconds=5), timedelta(days=1))
    assert default.channels == NAMES
    assert first.quiet is not None
    assert first.quiet.times.text == "sat-sun"
