"""Markers come back as people made them, and those that change what is normal have their tenant learnt anew."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from psycopg import Connection
from psycopg.errors import CheckViolation

from billingwatch.model import Tenant
from billingwatch.store import accounts, markers
from billingwatch.store.accounts import Account
from billingwatch.store.markers import Marker
from tests.factories import LIVE, NOON, TEST

HOUR = timedelta(hours=1)


def marker(**changes: Any) -> Marker:
    fields: dict[str, Any] = {
        "tenant": LIVE,
        "kind": "expected",
        "starts_at": NOON,
        "ends_at": NOON + HOUR,
        "text": "sale – é",
        "who": "ada",
    }
    return Marker(**(fields | changes))


def relearns(conn: Connection, since: datetime = NOON - HOUR) -> list[Tenant]:
    """The tenants of which all is to be learnt anew."""
    return [lesson.account.tenant for lesson in accounts.lessons(conn, since) if lesson.rewritten]


@pytest.fixture
def known(conn: Connection) -> None:
    """Both tenants had an event."""
    for tenant in (LIVE, TEST):
        accounts.touch(conn, Account(tenant, NOON, NOON, NOON))


def test_markers_of_a_tenant_come_back_in_order_of_time(conn: Connection) -> None:
    later, earlier, other = marker(starts_at=NOON + HOUR), marker(), marker(tenant=TEST, kind="deploy")
    ids = [markers.add(conn, each) for each in (later, earlier, other)]
    stored = [msgspec.structs.replace(each, id=id_) for each, id_ in zip((later, earlier, other), ids, strict=True)]
    assert markers.read(conn, LIVE) == [stored[1], stored[0]]
    assert markers.read(conn, TEST) == [stored[2]]
    assert markers.read_all(conn) == [stored[1], stored[2], stored[0]]


def test_removed_marker_is_told_once_and_its_neighbour_stays(conn: Connection) -> None:
    gone, stays = (markers.add(conn, marker(text=text)) for text in ("gone", "stays"))
    removed = markers.remove(conn, gone)
    assert removed == marker(text="gone", id=gone)
    assert markers.remove(conn, gone) is None
    assert [each.id for each in markers.read_all(conn)] == [stays]


@pytest.mark.parametrize(("kind", "anew"), [("deploy", []), ("expected", [LIVE]), ("new_normal", [LIVE])])
@pytest.mark.usefixtures("known")
def test_what_changes_the_normal_has_its_tenant_learnt_anew_when_it_comes_and_when_it_goes(
    conn: Connection, kind: str, anew: list[Tenant]
) -> None:
    id_ = markers.add(conn, marker(kind=kind))
    assert relearns(conn) == anew
    accounts.learnt(conn, LIVE)
    assert relearns(conn) == []
    markers.remove(conn, id_)
    assert relearns(conn) == anew


def test_marker_of_an_account_that_is_still_to_come_is_kept(conn: Connection) -> None:
    id_ = markers.add(conn, marker(tenant=Tenant("acct_new", True)))
    assert markers.read(conn, Tenant("acct_new", True)) == [marker(tenant=Tenant("acct_new", True), id=id_)]


def test_span_that_ends_before_it_begins_cannot_be_stored(conn: Connection) -> None:
    with pytest.raises(CheckViolation):
        markers.add(conn, marker(ends_at=NOON - HOUR))
