"""The file billingwatch.toml: channels and routes, every mistake with its line and key, the example that is shipped."""

import json
import re
import tomllib
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from billingwatch.cli import main
from billingwatch.model import Channel
from billingwatch.rules import Mistake, Rules, parse_rules, read_rules
from billingwatch.settings import ConfigurationError, Problem
from detectors.registry import DIALS, SHIPPED, configure, settings
from detectors.rule import KEYS
from detectors.setting import SENSITIVITIES
from detectors.threshold import Threshold
from notify.policy import configure as configure_policy

TOML = "b.toml"
EXAMPLE = Path(__file__).parents[2] / "billingwatch.example.toml"


def parsed(text: str, **env: str) -> tuple[Rules, list[str]]:
    """The rules, and every mistake of them and of the policy that stands in the same file."""
    problems: list[Problem] = []
    rules = parse_rules(text, env, TOML, problems)
    _, wrong = configure_policy(rules.alerting, rules.members)
    problems += [rules.file.mistake(key, fault) for key, fault in wrong.items()]
    return rules, [str(problem) for problem in problems]


def route_of(rules: Rules) -> tuple[str, ...]:
    return configure_policy(rules.alerting, rules.members)[0].default.channels


def urls(rules: Rules) -> dict[str, str]:
    return {name: channel.url for name, channel in rules.channels.items()}


A, B = "json://a", "json://b"


@pytest.mark.parametrize(
    ("text", "env", "channels", "route"),
    [
        ("", {}, {}, ()),
        ('channels.chat = "slack://a/b/c"', {}, {"chat": "slack://a/b/c"}, ("chat",)),
        ('channels.chat = ["json://a"]', {}, {"chat": A}, ("chat",)),
        ('channels.chat = ["json://a", "json://b"]', {}, {"chat-1": A, "chat-2": B}, ("chat-1", "chat-2")),
        ('channels.a = "json://a"\nchannels.b = "json://b"', {}, {"a": A, "b": B}, ("a", "b")),
        (
            'channels.a = "json://a"\nchannels.b = ["json://a", "json://b"]\nroute.channels = ["b"]',
            {},
            {"a": A, "b-1": A, "b-2": B},
            ("b-1", "b-2"),
        ),
        ('channels.chat = "env:CHAT"', {"CHAT": " json://a \n"}, {"chat": A}, ("chat",)),
        ("", {"BILLINGWATCH_APPRISE_URLS": "json://a"}, {"default": A}, ("default",)),
        (
            "",
            {"BILLINGWATCH_APPRISE_URLS": "json://a  json://b"},
            {"default-1": A, "default-2": B},
            ("default-1", "default-2"),
        ),
        (
            'channels.chat = "json://b"\nroute.channels = ["chat"]',
            {"BILLINGWATCH_APPRISE_URLS": "json://a"},
            {"chat": B, "default": A},
            ("chat",),
        ),
        ('channels.files = "file://a"', {}, {"files": "file://a"}, ("files",)),
    ],
)
def test_channels_and_the_route_to_them(
    text: str, env: dict[str, str], channels: dict[str, str], route: tuple[str, ...]
) -> None:
    rules, problems = parsed(text, **env)
    assert (urls(rules), route_of(rules), problems) == (channels, route, [])


def test_a_channel_may_say_more_than_its_address() -> None:
    text = 'channels.hook = {url = "https://a/b", secret = "env:NEW env:OLD", format = "keep", budget = 5}'
    rules, problems = parsed(text, NEW="whsec_bmV3", OLD="whsec_b2xk")
    assert (rules.channels, problems) == (
        {"hook": Channel("https://a/b", "whsec_bmV3 whsec_b2xk", "keep", budget=5)},
        [],
    )


def test_a_channels_address_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "chat").write_text("slack://a/b\n")
    rules, problems = parsed(f'channels.chat = "file:{tmp_path}/chat"')
    assert (urls(rules), problems) == ({"chat": "slack://a/b"}, [])


def test_the_environments_addresses_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text("json://a\n")
    rules, problems = parsed("", BILLINGWATCH_APPRISE_URLS_FILE=str(tmp_path / "urls"))
    assert (urls(rules), problems) == ({"default": A}, [])


KNOWN = (
    "known: channels, retention_days, sensitivity, time_zone, holidays, detectors, rules, accounts, "
    "alerts, route, routes, intervals, inhibit, digest"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("channel.x = 1", ['b.toml:1: channel: unknown key (did you mean "channels"?)']),
        ("[route]\n[rule.x]", ['b.toml:2: rule: unknown key (did you mean "rules"?)']),
        ("b = 1\na = 2", [f"b.toml:2: a: unknown key ({KNOWN})", f"b.toml:1: b: unknown key ({KNOWN})"]),
        (
            'route.channels = ["chat", "mail"]\nchannels.sms = "json://a"',
            ["b.toml:1: route.channels: no channel is named 'chat' or 'mail' (named: sms)"],
        ),
        ('route.channels = ["chat"]', ["b.toml:1: route.channels: no channel is named 'chat' (named: none)"]),
        (
            'route.channels = ["slack://secret"]',
            ["b.toml:1: route.channels: no channel is named an address (named: none)"],
        ),
        ('channels.chat = "env:CHAT"', ["b.toml:1: channels.chat: the variable CHAT is not set"]),
        (
            'channels.chat = ["env:A", "env:B"]',
            [
                "b.toml:1: channels.chat: the variable A is not set",
                "b.toml:1: channels.chat: the variable B is not set",
            ],
        ),
        (
            'channels.chat = "file:/nowhere/chat"',
            ["b.toml:1: channels.chat: /nowhere/chat cannot be read: FileNotFoundError"],
        ),
        ("channels.chat = []", ["b.toml:1: channels.chat: has no address (an Apprise URL or a list of them)"]),
        ('channels.chat = ""', ["b.toml:1: channels.chat: has no address (an Apprise URL or a list of them)"]),
        (
            'channels.a-1 = "json://a"\nchannels.a = ["json://b", "json://c"]',
            ["b.toml:1: channels.a-1: names two channels (several addresses of NAME are NAME-1, NAME-2, …)"],
        ),
        ("channels.chat = 5", ["b.toml:1: channels: Expected `str | object | array`, got `int` - at `$[...]`"]),
        ('channels = "json://a"', ["b.toml:1: channels: Expected `object`, got `str`"]),
        (
            'route.to = ["a"]',
            [
                "b.toml:1: route.to: unknown key (known: channels, escalate, escalate_after, group_interval, "
                "group_wait, quiet, repeat_interval)"
            ],
        ),
        ("route.channels = 5", ["b.toml:1: route.channels: is no list of channels' names"]),
        (
            'channels.x = "json://a"\n[[routes]]\nchannels = ["x"]\n[[routes]]\nseverity = "bad"\nchanels = ["x"]',
            [
                'b.toml:6: routes.2.chanels: unknown key (did you mean "channels"?)',
                "b.toml:5: routes.2.severity: 'bad' is no severity (low, medium, high, critical, or as >=high)",
                "b.toml:4: routes.2.channels: names no channel",
            ],
        ),
        (
            'alerts.group_wait = "soon"\nalerts.budget = 0\nalerts.quiet = "nights"',
            [
                "b.toml:3: alerts.quiet: 'nights' are no days (mon, tue, wed, thu, fri, sat, sun)",
                "b.toml:1: alerts.group_wait: 'soon' is no span (as 30s, 5m, 4h or 1d)",
                "b.toml:2: alerts.budget: 0 is no whole number from 1 to 10000",
            ],
        ),
        (
            '[intervals]\nnights = "22:00-22:00"\nhere = {times = "sat", zone = "Mars"}',
            [
                "b.toml:2: intervals.nights.times: '22:00-22:00' begin when they end; the whole day is 00:00-24:00",
                "b.toml:3: intervals.here.zone: 'Mars' is no time zone (as Europe/Berlin)",
            ],
        ),
        (
            '[digest]\ndaily = "8"\nweekly = "fri"\nalways = 1',
            [
                "b.toml:2: digest.daily: '8' is no time of the day (as 08:00)",
                "b.toml:3: digest.weekly: 'fri' is no day with a time (as mon 08:00)",
                "b.toml:4: digest.always: is neither true nor false",
            ],
        ),
        ("inhibit = 3", ["b.toml:1: inhibit: is no list of tables: write [[inhibit]]"]),
        (
            '[[inhibit]]\nby = "a"\nof = "b"\n[[inhibit]]\nby = "b"\nof = "a"',
            ["b.toml:4: inhibit.2: b and a would explain each other, and neither be told"],
        ),
        (
            '[[inhibit]]\nby = "volume_drop"\nof = "webhook_silence"',
            ["b.toml:1: inhibit.1: volume_drop and webhook_silence would explain each other, and neither be told"],
        ),
        (
            '[[inhibit]]\nby = "refund_spike"',
            ["b.toml:1: inhibit.1: wants `by` and `of`, names of detectors or rules"],
        ),
        (
            'channels.hook = {url = "https://a/b", sekret = "x"}',
            ["b.toml:1: channels.hook: Object contains unknown field `sekret`"],
        ),
        ('retention_days = "400"', ["b.toml:1: retention_days: Expected `int`, got `str`"]),
        ("retention_days = true", ["b.toml:1: retention_days: Expected `int`, got `bool`"]),
        ("retention_days = 30", ["b.toml:1: retention_days: 30 is too few (31 days at least: baselines need them)"]),
        ("retention_days = 0", ["b.toml:1: retention_days: 0 is too few (31 days at least: baselines need them)"]),
        (
            'colour = "red"\nretention_days = 1\nroute.channels = ["x"]\nchannels.y = "env:Y"',
            [
                f"b.toml:1: colour: unknown key ({KNOWN})",
                "b.toml:4: channels.y: the variable Y is not set",
                "b.toml:2: retention_days: 1 is too few (31 days at least: baselines need them)",
                "b.toml:3: route.channels: no channel is named 'x' (named: y)",
            ],
        ),
    ],
)
def test_every_mistake_is_told_with_its_line_and_key(text: str, expected: list[str]) -> None:
    assert parsed(text)[1] == expected


def test_what_is_no_toml_is_told_with_its_line() -> None:
    _, problems = parsed("retention_days = 400\n[channels\n")
    assert len(problems) == 1
    assert problems[0].startswith("b.toml:2: ")
    assert problems[0].endswith("(TOML: https://toml.io)")


PLACES = """\
# a comment
sensitivity = "quiet"
route.channels = [
    "ops",  # detectors = 1
]
note = '''
[detectors.refund_spike]
factor = 1
'''

[detectors.refund_spike]
factor = 3
windows = [
    "1h",
    "3h",
]
"least" = 9

[ "accounts" . "acct_x" . detectors.churn_spike ]
enabled = false

[rules]
many = { metric = "refund.created", window = "1h" }

[[list]]
item = 1
[[list]]
item = 2
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("sensitivity", 2),
        ("route", 3),
        ("route.channels", 3),
        ("note", 6),
        ("detectors", 11),
        ("detectors.refund_spike", 11),
        ("detectors.refund_spike.factor", 12),
        ("detectors.refund_spike.windows", 13),
        ("detectors.refund_spike.least", 17),
        ("detectors.refund_spike.shift", 11),
        ("accounts.acct_x.detectors.churn_spike", 19),
        ("accounts.acct_x.detectors.churn_spike.enabled", 20),
        ("rules.many.window", 23),
        ("rules.many.factor", 23),
        ("rules.few.factor", 22),
        ("list.1.item", 26),
        ("nothing.of.it", 0),
    ],
)
def test_a_key_is_found_in_its_line_and_a_missing_one_in_its_sections(key: str, line: int) -> None:
    file = parsed(PLACES)[0].file
    assert file.mistake(key, "is wrong").line == line


KEY = st.text("ab", min_size=1, max_size=2)
VALUE = st.sampled_from(["1", '"x = 1"', "[\n1,\n\n2]", "{ k = 2 }", "'''\n[a]\nb = 1\n'''", "1979-05-27"])


@given(st.dictionaries(KEY, st.dictionaries(KEY, VALUE, max_size=3), max_size=4), st.sampled_from(["\n", "\r\n"]))
def test_every_key_of_any_text_is_found_in_the_line_that_names_it(found: dict[str, dict[str, str]], end: str) -> None:
    text, places, line = "", {}, 1
    for section, table in found.items():
        places[section] = line
        text += f"[{section}]  # here\n\n"
        line += 2
        for key, value in table.items():
            places[f"{section}.{key}"] = line
            text += f"{key} = {value}\n"
            line += value.count("\n") + 1
    lines = parsed(text.replace("\n", end))[0].file.lines
    assert {key: at for key, at in lines.items() if not key.endswith(".k")} == places


def test_a_mistake_knows_its_parts() -> None:
    problems: list[Problem] = []
    parse_rules("\nretention_days = 3", {}, TOML, problems)
    place, fault, hint = "b.toml:2: retention_days", "3 is too few", "31 days at least: baselines need them"
    assert problems == [Mistake(place, fault, hint, file=TOML, line=2, key="retention_days")]


def test_both_the_file_and_the_variable_of_the_addresses_are_one_too_many() -> None:
    _, problems = parsed("", BILLINGWATCH_APPRISE_URLS="json://a", BILLINGWATCH_APPRISE_URLS_FILE="/run/urls")
    assert problems == [
        "BILLINGWATCH_APPRISE_URLS: set together with BILLINGWATCH_APPRISE_URLS_FILE (set one of the two)"
    ]


SECRET = "9f3kq7zx2w"


@given(
    st.sampled_from(
        [
            'channels.chat = {value}\nroute.channels = ["mail"]',
            "channels.chat = [{value}, 5]",
            "channels = {value}",
            "route.channels = [{value}]",
            "route = {value}",
            "retention_days = {value}",
            "detectors.surge.factor = {value}\ncolour = {value}",
            "channels.chat = {value}\nchannels.chat = {value}",
            "channels.chat = {value} {value}",
            "channels.chat = {value}\n[channels\n",
            "channels.chat = {value}\nroute = 5",
            "channels.hook = {{url = {value}, secret = {value}, format = {value}}}",
            "alerts.group_wait = {value}\nalerts.quiet = {value}\nalerts.budget = {value}",
            "[[routes]]\nchannels = {value}\nseverity = {value}\nduring = {value}",
            "intervals.x = {{times = {value}, zone = {value}}}",
            "digest = {{daily = {value}, weekly = {value}, channels = {value}}}",
        ]
    ),
    st.sampled_from(
        ['"slack://{secret}/b"', "'mailto://u:{secret}@host'", '"json://{secret}', '"\\q json://{secret}"']
    ),
)
def test_no_mistake_shows_an_address(shape: str, value: str) -> None:
    _, problems = parsed(shape.format(value=value.format(secret=SECRET)))
    assert not any(SECRET in problem for problem in problems)


def test_a_file_with_mistakes_names_itself(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("colour = 1\nretention_days = 2\n")
    with pytest.raises(ConfigurationError) as caught:
        read_rules({"BILLINGWATCH_CONFIG": str(path)})
    assert [problem.place for problem in caught.value.problems] == [f"{path}:1: colour", f"{path}:2: retention_days"]


def test_a_named_file_must_exist_and_the_usual_one_need_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_rules({}) == Rules()
    with pytest.raises(ConfigurationError) as caught:
        read_rules({"BILLINGWATCH_CONFIG": "other.toml"})
    assert str(caught.value) == "BILLINGWATCH_CONFIG: other.toml does not exist (unset it to run on defaults)"
    (tmp_path / "billingwatch.toml").write_text("retention_days = 90\n")
    assert read_rules({}).retention_days == 90


@pytest.mark.parametrize(("content", "error"), [(b"\xff", "UnicodeDecodeError"), (None, "IsADirectoryError")])
def test_a_file_that_is_no_text_is_a_problem(tmp_path: Path, content: bytes | None, error: str) -> None:
    path = tmp_path / "rules.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_rules({"BILLINGWATCH_CONFIG": str(path)})
    assert str(caught.value) == f"{path}: cannot be read: {error}"


def test_the_environments_channel_is_not_silently_replaced() -> None:
    problems: list[Problem] = []
    env = {"BILLINGWATCH_APPRISE_URLS": "json://a"}
    parse_rules('[channels]\ndefault = "json://b"', env, "rules.toml", problems)
    assert [problem.place for problem in problems] == ["rules.toml:2: channels.default"]


# The example that is shipped


def example() -> str:
    """The example with every setting taken into use: a line of prose has a space after its #."""
    return re.sub(r"^#(?=\S)", "", EXAMPLE.read_text(), flags=re.MULTILINE)


def test_the_example_as_it_stands_is_the_defaults() -> None:
    rules, problems = parsed(EXAMPLE.read_text())
    assert (rules.channels, rules.alerting, rules.sections, problems) == ({}, {}, {}, [])
    assert rules.retention_days == Rules().retention_days


def test_the_example_taken_into_use_is_without_mistake_and_changes_no_detector() -> None:
    rules, problems = parsed(example(), WHATSAPP_URL="console://")
    plans, wrong = configure(rules.sections)
    assert (problems, wrong) == ([], {})
    assert rules.retention_days == Rules().retention_days
    policy, _ = configure_policy(rules.alerting, rules.members)
    assert set(policy.default.channels) <= set(rules.channels)
    assert len(policy.routes) > 1
    shipped, taken = configure({})[0].of(""), plans.of("")
    assert {name: taken.detectors[name] for name in shipped.detectors} == shipped.detectors
    assert (taken.silence, taken.calendar) == (shipped.silence, shipped.calendar)


def test_the_example_holds_every_key_with_its_default() -> None:
    found = tomllib.loads(example())
    assert {"sensitivity": found["sensitivity"], "time_zone": found["time_zone"], "holidays": found["holidays"]} == {
        "sensitivity": "page",
        "time_zone": "UTC",
        "holidays": "",
    }
    shipped = {name: {"enabled": True} | settings(each) for name, each in SHIPPED.items()}
    assert shipped == {
        name: {key: SENSITIVITIES["page"] if value == "page" else value for key, value in table.items()}
        for name, table in found["detectors"].items()
    }
    first, *others = found["rules"].values()
    assert first.keys() == KEYS.keys()
    assert configure({"rules": {"x": first}}) == configure({"rules": {"x": {"metric": first["metric"]}}})
    assert all(table.keys() <= KEYS.keys() for table in others)
    (account,) = found["accounts"].values()
    assert account.keys() == {*DIALS, "detectors"}


def test_the_example_has_the_plain_old_rule_for_failures_refunds_disputes_and_cancellations() -> None:
    taken = configure({"rules": tomllib.loads(example())["rules"]})[0].of("")
    plain = configure({"rules": {"x": {"metric": "refund.created"}}})[0].of("").detectors["x"]
    rules = {name: each for name, each in taken.detectors.items() if name.startswith("many_")}
    assert {metric for name in rules for metric in taken.lines[f"rule.{name}"].metrics} == {
        "payment.failed",
        "refund.created",
        "dispute.created",
        "subscription.canceled",
    }
    for name, each in rules.items():
        assert replace(cast(Threshold, each), name="x", line="rule.x") == plain, name


# `billingwatch check`


def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, *arguments: str) -> Result:
    """The command with this file, and with no server to ask."""
    (tmp_path / "b.toml").write_text(text)
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_1")
    monkeypatch.setenv("BILLINGWATCH_CONFIG", str(tmp_path / "b.toml"))
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner().invoke(main, ["check", *arguments])


SHOP = """\
sensitivity = "quiet"
time_zone = "Europe/Berlin"
holidays = "DE-BY"
detectors.churn_spike.enabled = false
detectors.refund_spike = { windows = ["1h", "90m"], factor = 3 }
detectors.dispute_spike.factor = 3
rules.dip = { metric = "payment.succeeded", compare = "below", amounts = true, currency = "usd", livemode = true }
rules.visa = { metric = "payment.failed", stratum = "checkout", brand = "Visa", least = 5, account = "acct_1" }
accounts.acct_1.holidays = "US"
accounts.acct_1.detectors.churn_spike.enabled = true
accounts.acct_1.detectors.refund_spike.factor = 4
accounts.acct_1.detectors.dispute_spike.factor = 4
"""


def test_check_shows_what_will_be_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = check(monkeypatch, tmp_path, SHOP)
    lines = [re.sub(r"\s{2,}", "  ", line.rstrip()) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert "What is judged, in days of Europe/Berlin, the holidays of DE-BY apart:" in lines
    expected = [
        "churn_spike  off",
        "dip  medium  money of payment.succeeded in 1h below 0.5 x the average of 7d + 0, usd, live mode only",
        "acct_1  holidays  US  DE-BY",
        "acct_1  factor of refund_spike, dispute_spike  4  3",
        "acct_1  enabled of churn_spike  true  false",
        "acct_1  rule visa  payment.failed in 1h above 3 x the average of 7d + 1, at least 5, checkout, visa  none",
    ]
    assert [line for line in lines if line in expected] == expected
    assert any(line.startswith("refund_spike  8  medium  1h 90m  factor 3, ") for line in lines)


def test_check_tells_programs_every_value_in_force(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = json.loads(check(monkeypatch, tmp_path, SHOP, "--json").stdout)
    assert found["ok"] is True
    judged = found["judged"]
    assert (judged["time_zone"], judged["holidays"]) == ("Europe/Berlin", "DE-BY")
    assert judged["detectors"].keys() == SHIPPED.keys()
    assert judged["detectors"]["churn_spike"] == {"enabled": False}
    assert judged["detectors"]["failure_rate"]["sensitivity"] == 8.0
    assert judged["rules"].keys() == {"dip"}
    account = judged["accounts"]["acct_1"]
    assert account["detectors"]["churn_spike"]["enabled"] is True
    assert account["rules"]["visa"]["brand"] == "visa"
    assert configure({"rules": account["rules"]})[1] == {}


def test_check_ends_with_2_and_tells_each_mistake_with_file_line_and_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = "retention_days = 3\n\n[detectors.refund_spike]\nfactr = 3\n[rules.x]\nmetric = 'refunds'\n"
    result = check(monkeypatch, tmp_path, text, "--json")
    assert result.exit_code == 2
    found = [each for each in json.loads(result.stdout)["findings"] if each["ok"] is False]
    assert [(each["file"], each["line"], each["key"]) for each in found] == [
        (str(tmp_path / "b.toml"), 1, "retention_days"),
        (str(tmp_path / "b.toml"), 4, "detectors.refund_spike.factr"),
        (str(tmp_path / "b.toml"), 6, "rules.x.metric"),
    ]
    told = check(monkeypatch, tmp_path, text).stdout
    place = f"{tmp_path}/b.toml:4: detectors.refund_spike.factr"
    assert f'FAIL  rules: {place}: unknown key (did you mean "factor"?)' in told
    assert "What is judged" not in told
