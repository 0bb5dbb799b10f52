"""A person with a phone opens a link in a message, reads, and presses the button."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from psycopg import Connection

from billingwatch.model import Money
from billingwatch.store import audit, incidents
from console.answer import OFFERS
from tests.factories import NOON, incident
from tests.pipeline.consoles import Console, serving, token

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
NARROW: dict[str, Any] = {"viewport": {"width": 320, "height": 568}, "is_mobile": True, "has_touch": True}
WHY = (
    "41 of 58 card payments failed in 15 min (71%); usually 6%; by normal variation once in 3 million; "
    "also card_testing_with_a_rather_long_name_of_its_own"
)


@pytest.fixture
def console(database_url: str) -> Iterator[Console]:
    yield from serving(database_url, NOON + timedelta(minutes=40))


@pytest.fixture
def opened(conn: Connection) -> int:
    money = (Money(182300, "usd"), Money(5000, "jpy"), Money(1250, "kwd"))
    made = incident(why=WHY, at_risk=money, customers=31, severity="critical", scope="price_1" + "Q" * 40)
    id_ = incidents.open_incident(conn, made)
    assert id_ is not None
    incidents.log(conn, id_, NOON, None, "open", "first", "billingwatch")
    return id_


def visit(browser: Browser, console: Console, token_: str, *, strict: bool = True, **options: Any) -> Page:
    """The page on a phone. `strict` fails the test where it wants what its policy forbids, or is no success."""
    page = browser.new_context(**(PHONE | options)).new_page()
    if strict:
        page.on("console", lambda message: pytest.fail(message.text) if message.type == "error" else None)
    page.goto(f"http://127.0.0.1:{console.port}/answer/{token_}")
    return page


def state(conn: Connection, id_: int) -> str:
    found = incidents.read_one(conn, id_)
    assert found is not None
    return found.state


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_link_is_opened_read_pressed_and_used(
    conn: Connection, browser: Browser, console: Console, opened: int, scripts: bool
) -> None:
    link = token(conn, opened, "ack")
    page = visit(browser, console, link, java_script_enabled=scripts)
    expect(page.get_by_role("heading", level=1)).to_have_text(WHY)
    expect(page.get_by_text("open, acknowledged by nobody")).to_be_visible()
    page.reload()
    assert (state(conn, opened), audit.read(conn)) == ("open", [])
    page.get_by_role("button", name="Acknowledge").tap()
    expect(page.get_by_role("status")).to_have_text(f"Done. Incident {opened} is acked.")
    expect(page.get_by_role("button")).to_have_count(0)
    assert state(conn, opened) == "acked"
    page.context.close()

    other = visit(browser, console, link, strict=False, java_script_enabled=scripts)
    expect(other.get_by_role("status")).to_have_text("This link was used already. Nothing was done now.")
    expect(other.get_by_text("acknowledged, by link")).to_be_visible()
    expect(other.get_by_role("button")).to_have_count(0)
    assert len(audit.read(conn)) == 1
    other.context.close()


def test_button_of_a_page_that_was_open_since_before_does_nothing_more(
    conn: Connection, browser: Browser, console: Console, opened: int
) -> None:
    link = token(conn, opened, "ack")
    first, second = (visit(browser, console, link, strict=False) for _ in range(2))
    for page in (first, second):
        page.get_by_role("button").tap()
    expect(first.get_by_role("status")).to_contain_text("Done.")
    expect(second.get_by_role("status")).to_have_text("This link was used already. Nothing was done now.")
    assert len(audit.read(conn)) == 1
    for page in (first, second):
        page.context.close()


def test_page_of_the_incident_offers_all_and_each_works(
    conn: Connection, browser: Browser, console: Console, opened: int
) -> None:
    page = visit(browser, console, token(conn, opened))
    for offer in OFFERS.values():
        expect(page.get_by_role("button", name=offer.label, exact=True)).to_be_visible()
    page.get_by_role("button", name="Snooze for 1 hour").tap()
    expect(page.get_by_role("status")).to_have_text(f"Done. Incident {opened} is snoozed until 2026-03-10 13:40 UTC.")
    page.get_by_role("button", name="It was expected").tap()
    expect(page.get_by_role("status")).to_contain_text("is called expected, and acked.")
    left = page.get_by_role("button").all_inner_texts()
    assert left == ["Snooze for 1 day", "False alarm"]
    assert [row["act"] for row in audit.read(conn)] == ["feedback", "snooze"]
    page.context.close()


@pytest.mark.parametrize("options", [PHONE, NARROW], ids=["360", "320"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("act", ["", "ack"], ids=["page", "ack"])
def test_page_fits_a_phone_with_buttons_for_thumbs(
    conn: Connection, browser: Browser, console: Console, opened: int, options: dict[str, Any], scheme: str, act: str
) -> None:
    page = visit(browser, console, token(conn, opened, act), **options, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= options["viewport"]["width"]
    for button in page.get_by_role("button").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 19, 24)"}[scheme]
    page.context.close()


def test_page_works_for_the_keyboard(conn: Connection, browser: Browser, console: Console, opened: int) -> None:
    page = visit(browser, console, token(conn, opened, "ack"))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("is acked")
    page.context.close()
