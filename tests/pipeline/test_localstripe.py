"""A Stripe server that nobody here wrote sends signed webhooks; they verify, are stored and are counted.

https://github.com/adrienverge/localstripe signs as Stripe does and makes its own, sparser objects: what it leaves
out must harm nothing.
"""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from billingwatch.queues import EVENTS
from billingwatch.store import quarantine
from tests.conftest import Servers
from tests.factories import TEST
from tests.pipeline.receiver import SECRET, Receiver, listens, receiving
from tests.waiting import PATIENCE, until
from worker.process import Process, start
from worker.runner import Runner

# As `python -m localstripe`, but on the loopback alone, and without the copy of its store under a fixed name in /tmp.
PROGRAM = """
import sys
from aiohttp import web
from localstripe.server import app, store
store.dump_to_disk = lambda: None
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
"""


class Stripe:
    """Its API: form data in, JSON out."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def post(self, path: str, **fields: str) -> dict[str, Any]:
        """The object made; a declined card (402) is an answer, too."""
        return self._ask(path, urllib.parse.urlencode(fields).encode(), "application/x-www-form-urlencoded")

    def configure(self, receiver: Receiver) -> None:
        """Have webhooks sent to the receiver."""
        webhook = {"url": f"http://127.0.0.1:{receiver.port}/webhook", "secret": SECRET}
        self._ask("/_config/webhooks/billingwatch", json.dumps(webhook).encode(), "application/json")

    def delete(self, path: str) -> dict[str, Any]:
        return self._ask(path, None, "", "DELETE")

    def _ask(self, path: str, body: bytes | None, kind: str, method: str = "POST") -> dict[str, Any]:
        headers = {"Authorization": "Bearer sk_test_12345", "Content-Type": kind}
        request = urllib.request.Request(self.base + path, body, headers, method=method)  # noqa: S310 - our own http
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()
            error.close()
            if error.code != 402:
                raise AssertionError(f"{path}: {error.code} {text!r}") from None
        found: dict[str, Any] = json.loads(text) if text else {}
        return found


@pytest.fixture
def receiver(servers: Servers, redis_url: str) -> Iterator[Receiver]:
    with receiving(redis_url) as receiver:
        yield receiver


@pytest.fixture
def stripe(tmp_path: Path, receiver: Receiver) -> Iterator[Stripe]:
    """localstripe, with its webhooks going to the receiver."""
    pytest.importorskip("localstripe")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (tmp_path / "localstripe.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(port)], stdout=log, stderr=log, env=dict(os.environ)
        )
    try:
        stripe = Stripe(port)
        until(lambda: listens(port))
        stripe.configure(receiver)
        yield stripe
    finally:
        server.terminate()
        server.wait(PATIENCE)


def types(conn: Connection) -> Counter[str]:
    return Counter(type_ for (type_,) in conn.execute("SELECT type FROM events"))


def counted(conn: Connection, metric: str) -> tuple[int, int]:
    row = conn.execute(
        "SELECT coalesce(sum(count), 0)::bigint, coalesce(sum(amount), 0)::bigint FROM rollups "
        "WHERE account = %s AND livemode = %s AND metric = %s AND grain = 60",
        (TEST.account, TEST.livemode, metric),
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def test_a_customers_life_at_another_stripe_is_received_stored_and_counted(
    stripe: Stripe, receiver: Receiver, process: Process, conn: Connection
) -> None:
    start(process)
    customer = stripe.post("/v1/customers", email="ada@example.com")["id"]
    good = add_card(stripe, customer, "4242424242424242")
    stripe.post(f"/v1/customers/{customer}", **{"invoice_settings[default_payment_method]": good})
    product = stripe.post("/v1/products", name="Tea", type="service")["id"]
    plan = stripe.post("/v1/plans", amount="1900", currency="usd", interval="month", product=product, name="Tea")["id"]
    subscription = stripe.post("/v1/subscriptions", customer=customer, **{"items[0][plan]": plan})["id"]
    pay(stripe, customer, good, 2500)
    pay(stripe, customer, add_card(stripe, customer, "4000000000000341", attach=False), 4200)
    stripe.delete(f"/v1/subscriptions/{subscription}")

    wanted = Counter(
        {
            "customer.created": 1,
            "customer.subscription.created": 1,
            "customer.subscription.deleted": 1,
            "invoice.payment_succeeded": 1,
            "payment_intent.payment_failed": 1,
            "payment_intent.succeeded": 2,
        }
    )
    until(lambda: drained(process) and wanted <= types(conn))
    assert quarantine.read_all(conn) == []
    assert counted(conn, "subscription.created")[0] == 1
    assert counted(conn, "subscription.canceled")[0] == 1
    assert counted(conn, "payment.failed") == (1, 4200)
    assert counted(conn, "payment.succeeded") == (2, 1900 + 2500)
    assert conn.execute("SELECT DISTINCT account, livemode FROM events").fetchall() == [("default", False)]


def drained(process: Process) -> bool:
    """Work off what has arrived."""
    Runner(process.queue(EVENTS), process).work(burst=True, logging_level="WARNING")
    return True


def add_card(stripe: Stripe, customer: str, number: str, *, attach: bool = True) -> str:
    fields = {"number": number, "exp_month": "12", "exp_year": "2040", "cvc": "123"}
    method = stripe.post(
        "/v1/payment_methods", type="card", **{f"card[{name}]": value for name, value in fields.items()}
    )
    if attach:
        stripe.post(f"/v1/payment_methods/{method['id']}/attach", customer=customer)
    return str(method["id"])


def pay(stripe: Stripe, customer: str, method: str, amount: int) -> None:
    stripe.post(
        "/v1/payment_intents",
        amount=str(amount),
        currency="usd",
        payment_method=method,
        confirm="true",
        **({"customer": customer} if customer else {}),
    )
