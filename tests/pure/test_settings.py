"""Settings from the environment: everything wrong is told at once, with its place and a hint, and no secret is told."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.settings import (
    ConfigurationError,
    Environment,
    Ingest,
    Logs,
    Stores,
    read_database,
    read_ingest,
    read_logs,
    read_redis,
    read_sources,
    read_stores,
)

REDIS = "redis://localhost:6379/0"
POSTGRES = "postgresql://localhost/billingwatch"
RECEIVER = {"REDIS_URL": REDIS, "STRIPE_WEBHOOK_SECRET": "whsec_1"}


def wrong(read: Callable[[Mapping[str, str]], object], env: Mapping[str, str]) -> list[str]:
    """What is wrong, as `place: fault (hint)`."""
    with pytest.raises(ConfigurationError) as caught:
        read(env)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


REDIS_HINT = "(redis://host:6379/0; `billingwatch up` brings its own)"
POSTGRES_HINT = "(postgresql://user@host/billingwatch; `billingwatch up` brings its own)"
SECRET_HINT = "(the endpoint's signing secret, whsec_…, from Stripe's dashboard)"


@pytest.mark.parametrize(
    ("read", "env", "expected"),
    [
        (
            read_ingest,
            {},
            [f"REDIS_URL: is not set {REDIS_HINT}", f"STRIPE_WEBHOOK_SECRET: is not set {SECRET_HINT}"],
        ),
        (read_ingest, {"REDIS_URL": REDIS}, [f"STRIPE_WEBHOOK_SECRET: is not set {SECRET_HINT}"]),
        (
            read_ingest,
            {"REDIS_URL": REDIS, "STRIPE_WEBHOOK_SECRET": " , "},
            [f"STRIPE_WEBHOOK_SECRET: is not set {SECRET_HINT}"],
        ),
        (
            read_ingest,
            {"REDIS_URL": "http://localhost", "STRIPE_WEBHOOK_SECRET": "whsec_1 whsec_2"},
            [
                f"REDIS_URL: is no redis or rediss or unix:// address {REDIS_HINT}",
                "STRIPE_WEBHOOK_SECRET: has white space inside a secret (separate secrets by commas)",
            ],
        ),
        (
            read_ingest,
            RECEIVER | {"STRIPE_WEBHOOK_SECRET_SHOP": "a b", "STRIPE_WEBHOOK_SECRET_BAR": "c d"},
            [
                "STRIPE_WEBHOOK_SECRET_BAR: has white space inside a secret (separate secrets by commas)",
                "STRIPE_WEBHOOK_SECRET_SHOP: has white space inside a secret (separate secrets by commas)",
            ],
        ),
        (
            read_ingest,
            RECEIVER | {"STRIPE_WEBHOOK_SECRET_FILE": "/run/secret"},
            ["STRIPE_WEBHOOK_SECRET: set together with STRIPE_WEBHOOK_SECRET_FILE (set one of the two)"],
        ),
        (
            read_ingest,
            {"REDIS_URL": REDIS, "STRIPE_WEBHOOK_SECRET_FILE": "/nowhere/secret"},
            ["STRIPE_WEBHOOK_SECRET_FILE: cannot be read: FileNotFoundError (does the file exist?)"],
        ),
        (
            read_stores,
            {},
            [f"DATABASE_URL: is not set {POSTGRES_HINT}", f"REDIS_URL: is not set {REDIS_HINT}"],
        ),
        (
            read_stores,
            {"DATABASE_URL": REDIS, "REDIS_URL": POSTGRES},
            [
                f"DATABASE_URL: is no postgres or postgresql:// address {POSTGRES_HINT}",
                f"REDIS_URL: is no redis or rediss or unix:// address {REDIS_HINT}",
            ],
        ),
        (
            read_database,
            {"DATABASE_URL": "postgresql://[half"},
            [f"DATABASE_URL: is no postgres or postgresql:// address {POSTGRES_HINT}"],
        ),
        (read_redis, {"REDIS_URL": "   "}, [f"REDIS_URL: is not set {REDIS_HINT}"]),
        (
            read_logs,
            {"LOG_LEVEL": "loud", "LOG_FORMAT": "xml"},
            [
                "LOG_LEVEL: is none of debug, info, warning, error (the default is info)",
                "LOG_FORMAT: is none of console, json (the default is console)",
            ],
        ),
    ],
)
def test_every_problem_is_told_at_once(
    read: Callable[[Mapping[str, str]], object], env: dict[str, str], expected: list[str]
) -> None:
    assert wrong(read, env) == expected


@pytest.mark.parametrize(
    ("env", "sources"),
    [
        ({"STRIPE_WEBHOOK_SECRET": "whsec_1"}, {"default": ("whsec_1",)}),
        ({"STRIPE_WEBHOOK_SECRET": " whsec_2 , whsec_1,\n"}, {"default": ("whsec_2", "whsec_1")}),
        ({"STRIPE_WEBHOOK_SECRET_SHOP": "whsec_3"}, {"shop": ("whsec_3",)}),
        (
            {"STRIPE_WEBHOOK_SECRET": "whsec_1", "STRIPE_WEBHOOK_SECRET_EU_SHOP_2": "whsec_3,whsec_4"},
            {"default": ("whsec_1",), "eu-shop-2": ("whsec_3", "whsec_4")},
        ),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_1", "STRIPE_WEBHOOK_SECRET_SHOP": ""}, {"default": ("whsec_1",)}),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_1", "STRIPE_WEBHOOK_SECRETS": "x"}, {"default": ("whsec_1",)}),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_1", "stripe_webhook_secret_shop": "x"}, {"default": ("whsec_1",)}),
    ],
)
def test_a_source_for_each_variable_and_several_secrets_for_each_source(
    env: dict[str, str], sources: dict[str, tuple[str, ...]]
) -> None:
    assert read_ingest({"REDIS_URL": REDIS} | env) == Ingest(redis_url=REDIS, sources=sources)


def test_secrets_come_from_files_too(tmp_path: Path) -> None:
    for name, text in {"stripe": "whsec_1,whsec_0\n", "shop": "whsec_2\n", "redis": f"{REDIS}\n"}.items():
        (tmp_path / name).write_text(text)
    settings = read_ingest(
        {
            "STRIPE_WEBHOOK_SECRET_FILE": str(tmp_path / "stripe"),
            "STRIPE_WEBHOOK_SECRET_SHOP_FILE": str(tmp_path / "shop"),
            "REDIS_URL_FILE": str(tmp_path / "redis"),
        }
    )
    assert settings == Ingest(redis_url=REDIS, sources={"default": ("whsec_1", "whsec_0"), "shop": ("whsec_2",)})


@pytest.mark.parametrize(("content", "error"), [(b"\xff\xfe", "UnicodeDecodeError"), (None, "IsADirectoryError")])
def test_a_file_that_is_no_text_is_a_problem(tmp_path: Path, content: bytes | None, error: str) -> None:
    path = tmp_path / "secret"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert wrong(read_redis, {"REDIS_URL_FILE": str(path)}) == [
        f"REDIS_URL_FILE: cannot be read: {error} (does the file exist?)"
    ]


def test_an_empty_file_is_as_if_nothing_was_set(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("\n")
    assert wrong(read_redis, {"REDIS_URL_FILE": str(tmp_path / "url")}) == [f"REDIS_URL: is not set {REDIS_HINT}"]


def test_each_process_reads_what_it_needs_and_nothing_else() -> None:
    everything = RECEIVER | {"DATABASE_URL": POSTGRES}
    assert read_ingest(RECEIVER | {"DATABASE_URL": "nonsense"}) == read_ingest(everything)
    assert read_stores(everything) == Stores(database_url=POSTGRES, redis_url=REDIS)
    assert read_database(everything) == POSTGRES
    assert read_redis(everything) == REDIS
    assert read_logs({}) == Logs("info", "console")
    assert read_logs({"LOG_LEVEL": "DEBUG", "LOG_FORMAT": " json "}) == Logs("debug", "json")


@pytest.mark.parametrize(("value", "port"), [("", 8000), ("0", 0), ("8080", 8080), (" 65535 ", 65535), ("08080", 8080)])
def test_ports(value: str, port: int) -> None:
    reader = Environment({"PORT": value})
    assert reader.port("PORT", 8000) == port
    reader.finish()


@pytest.mark.parametrize("value", ["65536", "-1", "80a", "8e3", "1_0", "\u0661", "9" * 5000])
def test_what_is_no_port(value: str) -> None:
    reader = Environment({"PORT": value})
    assert reader.port("PORT", 8000) == 8000
    assert [str(problem) for problem in reader.problems] == ["PORT: is no port (a whole number from 0 to 65535)"]


SECRET = "9f3kq7zx2w"


@given(
    st.lists(
        st.sampled_from(
            [SECRET, f"whsec_{SECRET}", f"http://u:{SECRET}@host", f"postgres//{SECRET}", f"redis://[{SECRET}"]
        )
        | st.text(max_size=5),
        max_size=4,
    ).map(" ".join),
    st.sampled_from(["STRIPE_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRET_SHOP", "DATABASE_URL", "REDIS_URL"]),
    st.booleans(),
)
def test_no_error_shows_a_secret(value: str, name: str, twice: bool) -> None:
    env = {name: value} | ({f"{name}_FILE": "/nowhere"} if twice else {})
    refusals = [refused(read, env) for read in (read_ingest, read_stores, read_database, read_redis)]
    assert any(refusals)  # each of them needs more than one variable, or another one
    assert SECRET not in "".join(refusals)


def refused(read: Callable[[Mapping[str, str]], object], env: Mapping[str, str]) -> str:
    """All that the refusal shows, "" where there is none."""
    try:
        read(env)
    except ConfigurationError as error:
        return f"{error} {error!r}"
    return ""


def test_sources_are_read_without_judging_the_rest() -> None:
    reader = Environment({"STRIPE_WEBHOOK_SECRET": "whsec_1"})
    assert read_sources(reader) == {"default": ("whsec_1",)}
    assert reader.problems == []


def test_the_default_source_has_one_variable() -> None:
    with pytest.raises(ConfigurationError, match="STRIPE_WEBHOOK_SECRET_DEFAULT: names the default source"):
        read_ingest({"REDIS_URL": "redis://r", "STRIPE_WEBHOOK_SECRET": "a", "STRIPE_WEBHOOK_SECRET_DEFAULT": "b"})
