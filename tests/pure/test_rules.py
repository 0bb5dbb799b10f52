"""The rules of billingwatch.toml: what they mean, and every mistake in them with its key."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.rules import Route, Rules, parse_rules, read_rules
from billingwatch.settings import ConfigurationError, Problem
from detectors.registry import DETECTORS, configure

TOML = "b.toml"


def parsed(text: str, **env: str) -> tuple[Rules, list[str]]:
    problems: list[Problem] = []
    rules = parse_rules(text, env, TOML, problems)
    return rules, [str(problem) for problem in problems]


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
    assert parsed(text, **env) == (Rules(channels=channels, route=Route(route)), [])


def test_a_channels_address_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "chat").write_text("slack://a/b\n")
    rules, problems = parsed(f'channels.chat = "file:{tmp_path}/chat"')
    assert (rules.channels, problems) == ({"chat": "slack://a/b"}, [])


def test_the_environments_addresses_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text("json://a\n")
    rules, problems = parsed("", BILLINGWATCH_APPRISE_URLS_FILE=str(tmp_path / "urls"))
    assert (rules.channels, problems) == ({"default": A}, [])


KNOWN = "known: channels, route, detectors, retention_days"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("channel.x = 1", [f"b.toml: channel: unknown key ({KNOWN})"]),
        ("b = 1\na = 2", [f"b.toml: a: unknown key ({KNOWN})", f"b.toml: b: unknown key ({KNOWN})"]),
        (
            'route.channels = ["chat", "mail"]\nchannels.sms = "json://a"',
            [
                "b.toml: route.channels: no channel is named 'chat' (named: sms)",
                "b.toml: route.channels: no channel is named 'mail' (named: sms)",
            ],
        ),
        ('route.channels = ["chat"]', ["b.toml: route.channels: no channel is named 'chat' (named: none)"]),
        (
            'route.channels = ["slack://secret"]',
            ["b.toml: route.channels: no channel is named an address (named: none)"],
        ),
        ('channels.chat = "env:CHAT"', ["b.toml: channels.chat: the variable CHAT is not set"]),
        (
            'channels.chat = ["env:A", "env:B"]',
            ["b.toml: channels.chat: the variable A is not set", "b.toml: channels.chat: the variable B is not set"],
        ),
        (
            'channels.chat = "file:/nowhere/chat"',
            ["b.toml: channels.chat: /nowhere/chat cannot be read: FileNotFoundError"],
        ),
        ("channels.chat = []", ["b.toml: channels.chat: has no address (an Apprise URL or a list of them)"]),
        ('channels.chat = ""', ["b.toml: channels.chat: has no address (an Apprise URL or a list of them)"]),
        (
            'channels.a-1 = "json://a"\nchannels.a = ["json://b", "json://c"]',
            ["b.toml: channels.a-1: names two channels (several addresses of NAME are NAME-1, NAME-2, …)"],
        ),
        ("channels.chat = 5", ["b.toml: channels: Expected `str | array`, got `int` - at `$[...]`"]),
        ('channels = "json://a"', ["b.toml: channels: Expected `object`, got `str`"]),
        ('route.to = ["a"]', ["b.toml: route: Object contains unknown field `to`"]),
        ('route.channels = "chat"', ["b.toml: route: Expected `array`, got `str` - at `$.channels`"]),
        ('retention_days = "400"', ["b.toml: retention_days: Expected `int`, got `str`"]),
        ("retention_days = true", ["b.toml: retention_days: Expected `int`, got `bool`"]),
        ("retention_days = 30", ["b.toml: retention_days: 30 is too few (31 days at least: baselines need them)"]),
        ("retention_days = 0", ["b.toml: retention_days: 0 is too few (31 days at least: baselines need them)"]),
        ("detectors.surge = 3", ["b.toml: detectors: Expected `object`, got `int` - at `$[...]`"]),
        (
            'colour = "red"\nretention_days = 1\nroute.channels = ["x"]\nchannels.y = "env:Y"',
            [
                f"b.toml: colour: unknown key ({KNOWN})",
                "b.toml: channels.y: the variable Y is not set",
                "b.toml: route.channels: no channel is named 'x' (named: y)",
                "b.toml: retention_days: 1 is too few (31 days at least: baselines need them)",
            ],
        ),
    ],
)
def test_every_mistake_is_told_with_its_key(text: str, expected: list[str]) -> None:
    assert parsed(text)[1] == expected


def test_what_is_no_toml_is_told_with_its_line() -> None:
    _, problems = parsed("retention_days = 400\n[channels\n")
    assert len(problems) == 1
    assert problems[0].startswith("b.toml: ")
    assert "line 2" in problems[0]


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
    assert [problem.place for problem in caught.value.problems] == [f"{path}: colour", f"{path}: retention_days"]


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


# What the detectors' sections mean is the detectors' business


def test_thresholds_are_changed_one_by_one_and_a_detector_is_switched_off() -> None:
    rules, problems = parsed(
        "[detectors.refund_spike]\nfactor = 5\nleast = 9\n[detectors.churn_spike]\nenabled = false\n"
    )
    detectors, wrong = configure(rules.detectors)
    assert (problems, wrong) == ([], {})
    assert detectors.keys() == DETECTORS.keys() - {"churn_spike"}
    changed = detectors["refund_spike"]
    assert (getattr(changed, "factor", None), getattr(changed, "least", None)) == (5.0, 9)
    assert changed.metrics == DETECTORS["refund_spike"].metrics
    assert detectors["failure_rate"] == DETECTORS["failure_rate"]


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("refunds.factor = 5", "detectors.refunds", "no such detector; there are failure_rate, "),
        ("refund_spike.factr = 5", "detectors.refund_spike", "unknown field `factr`"),
        ('refund_spike.factor = "five"', "detectors.refund_spike", "Expected `float`, got `str` - at `$.factor`"),
        ('refund_spike.metric = "payment.failed"', "detectors.refund_spike", "`metric` cannot be changed"),
        ('refund_spike.severity = "dire"', "detectors.refund_spike", "Invalid enum value 'dire' - at `$.severity`"),
        ("refund_spike.enabled = 0", "detectors.refund_spike.enabled", "expected true or false"),
    ],
)
def test_a_section_with_a_mistake_is_told_and_keeps_what_was_shipped(text: str, place: str, why: str) -> None:
    rules, _ = parsed(f"detectors.{text}")
    detectors, wrong = configure(rules.detectors)
    assert wrong.keys() == {place}
    assert why in wrong[place]
    if "enabled" not in text:
        assert detectors == DETECTORS


def test_the_environments_channel_is_not_silently_replaced() -> None:
    problems: list[Problem] = []
    env = {"BILLINGWATCH_APPRISE_URLS": "json://a"}
    parse_rules('[channels]\ndefault = "json://b"', env, "rules.toml", problems)
    assert [problem.place for problem in problems] == ["rules.toml: channels.default"]
