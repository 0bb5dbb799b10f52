"""Which channel addresses are taken, and that no secret in one is ever told."""

import io
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billingwatch.model import Channel
from notify import send
from notify.cause import Delivery
from notify.telling import Message
from tests.pipeline.senders import Moody

MESSAGE = Message("title", "body")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "no schema"),
        ("hunter2hunter2", "no schema"),
        ("slak://hunter2hunter2", "unknown schema; is slack:// meant?"),
        ("slack://hunter2hunter2", "not a complete Slack URL"),
        ("https://hunter2.example/hunter2hunter2", "needs a secret"),
        ("http:///hunter2hunter2", "not a complete"),
        ("file:///tmp/hunter2hunter2", "unknown schema"),
        ("exec://hunter2hunter2", "unknown schema"),
        ("syslog://hunter2hunter2", "acts on this machine"),
        (" SysLog://hunter2hunter2", "acts on this machine"),
        ("dbus://", "acts on this machine"),
        ("macosx://hunter2hunter2", "acts on this machine"),
        ("windows://", "acts on this machine"),
    ],
)
def test_url_that_cannot_be_used_is_permanent_and_not_repeated(url: str, words: str) -> None:
    fault = send.problem(url)
    assert fault is not None
    assert words in fault
    assert "hunter2" not in fault
    assert send.send(Channel(url), MESSAGE) == Delivery(ok=False, permanent=True, error=fault)


@pytest.mark.parametrize(
    "url",
    [
        "console://",
        "json://shop.example/hook",
        "xml://shop.example",
        "form://shop.example",
        "mailto://bob:pw@shop.example",
        "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
    ],
)
def test_url_that_can_be_used(url: str) -> None:
    assert send.problem(url) is None


def test_local_service_can_be_allowed() -> None:
    assert send.problem("syslog://", allow_local=True) is None


def test_every_service_that_touches_this_machine_is_refused() -> None:
    """An Apprise that gains another one fails here, by what its modules import."""
    imports = re.compile(
        r"^\s*(?:import|from)\s+(?:subprocess|syslog|dbus|gi|win32api|hid|ctypes|pty|AppKit|Foundation)\b", re.MULTILINE
    )
    services = send.load().NotificationManager()
    local = set()
    for service in services.plugins(include_disabled=True):
        source = Path(sys.modules[service.__module__].__file__ or "")
        if imports.search(source.read_text(encoding="utf-8")) or source.stem in ("macosx", "gnome"):
            local |= service.schemas(service)
    assert {"syslog", "dbus", "windows", "blink1", "macosx", "gnome", "glib"} <= local
    assert local <= send.LOCAL.keys()
    assert set(send.LOCAL) <= set(services.schemas())


def test_only_schemas_whose_host_is_a_server_show_it() -> None:
    services = send.load().NotificationManager()
    for schema in send.SERVERS - {"http", "https"}:
        for template in services[schema].templates:
            assert re.match(r"\{schema\}://([^/]*@)?\{host\}", template), (schema, template)


SECRET = st.text("abcdefXYZ0123456789-_.~!$%&/@:=+?# ", min_size=8, max_size=30).filter(
    lambda text: text == text.strip() and len(set(text)) > 4
)
URLS = (
    "{schema}://{secret}:{secret}@shop.example/hook",
    "{schema}://bob:{secret}@shop.example:8080?to=ops@shop.example",
    "{schema}://{secret}@shop.example",
    "{schema}://shop.example/{secret}/",
    "{schema}://shop.example/?+Authorization=Bearer%20{secret}&-token={secret}",
    "{schema}://shop.example#{secret}",
    "slack://{secret}/{secret}/{secret}",
    "ntfy://{secret}",
    "https://{secret}@hooks.example/{secret}",
)


@given(
    secret=SECRET,
    url=st.sampled_from(URLS),
    schema=st.sampled_from([*sorted(send.SERVERS), "ntfy", "slack", "x"]),
    quoted=st.booleans(),
)
def test_mask_holds_no_secret(secret: str, url: str, schema: str, quoted: bool) -> None:
    written = quote(secret, safe="") if quoted else secret
    masked = send.mask(url.format(schema=schema, secret=written))
    assert secret not in masked
    assert written not in masked
    assert "ops@" not in masked
    assert "bob" not in masked


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("console://", "console://"),
        ("json://bob:pw@shop.example:8080/hook?x=y", "json://shop.example:8080/****"),
        ("mailto://bob:pw@gmail.com", "mailto://gmail.com/****"),
        ("JSON://[::1]:80/x", "json://[::1]:80/****"),
        ("json://bob:pa/ss@shop.example", "json://****"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack://****"),
        ("ntfy://our-secret-topic", "ntfy://****"),
        ("hunter2", "****"),
        ("", "****"),
    ],
)
def test_mask(url: str, masked: str) -> None:
    assert send.mask(url) == masked


@pytest.fixture
def process_log() -> Iterator[io.StringIO]:
    """What a process that logs everything would write; pytest's own capture hears more than such a process."""
    log = io.StringIO()
    handler, root = logging.StreamHandler(log), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield log
    root.setLevel(level)
    root.removeHandler(handler)


HIDING = (
    "json://bob:{secret}@127.0.0.1:{port}/{end}",
    "json://{secret}:pw@127.0.0.1:{port}/{end}",
    "json://127.0.0.1:{port}/{secret}/{end}",
    "json://127.0.0.1:{port}/{end}?+X-Key={secret}",
    "json://127.0.0.1:{port}/{end}?-key={secret}",
)


# Apprise decodes twice: a "%a2" in a secret is no longer what was written, and may be no header at all.
@given(
    secret=SECRET.filter(lambda text: "%" not in text),
    answer=st.sampled_from(["200", "401", "500", "away"]),
    url=st.sampled_from(HIDING),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_real_delivery_tells_no_secret(
    answering: tuple[Moody, int], process_log: io.StringIO, secret: str, answer: str, url: str
) -> None:
    """Neither the error nor any log that reaches the process's handlers, at debug level."""
    moody, closed_port = answering
    port, end = (closed_port, "200") if answer == "away" else (moody.server_port, answer)
    hidden = quote(secret, safe="")
    told = send.send(Channel(url.format(secret=hidden, port=port, end=end)), MESSAGE, timeout=10)
    assert told.ok == (answer == "200")
    logging.getLogger().debug("after %s", answer)
    assert process_log.getvalue().endswith(f"after {answer}\n")
    for text in (told.error, process_log.getvalue()):
        assert secret not in text
        assert hidden not in text


def test_apprise_is_loaded_by_the_first_delivery_only() -> None:
    code = (
        "import sys; from billingwatch.model import Channel; from notify.telling import Message\n"
        "from notify.send import send; send(Channel('console://'), Message('t', 'b')); print('apprise' in sys.modules)"
    )
    root = Path(send.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
