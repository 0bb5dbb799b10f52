"""The users that the manual makes, with its own statements on real servers: they can do their work, and no more."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from billingwatch.queues import EVENTS, Received
from billingwatch.rules import Rules
from billingwatch.schema import migrate
from billingwatch.settings import Stores
from billingwatch.store import acts, incidents, links
from billingwatch.store.connection import connect
from detectors.registry import configure
from ingest.queue import EventQueue, Health, durability_problems
from notify.policy import Policy
from tests.conftest import Servers
from tests.factories import LIVE, failed, paid, received
from tests.pipeline.manual import section
from worker.deliver import drain
from worker.evaluate import evaluate
from worker.learn import learn
from worker.process import Process, start
from worker.record import record
from worker.runner import run

MINUTE, HOUR, DAY = 60, 3600, 86_400  # seconds


@pytest.fixture
def redis_users(redis: Redis, redis_url: str) -> Iterator[dict[str, str]]:
    """The addresses of the manual's users."""
    urls = {}
    for line in section("docs/security.md", "Redis").partition("```text\n")[2].partition("```")[0].splitlines():
        _, name, *grants = line.split()
        redis.execute_command("ACL", "SETUSER", name, "reset", *grants)  # type: ignore[no-untyped-call]
        urls[name] = redis_url.replace("unix://", f"unix://{name}:REPLACE_ME@")
    yield urls
    redis.execute_command("ACL", "DELUSER", *urls)  # type: ignore[no-untyped-call]


def test_the_redis_users_of_the_manual_can_do_their_work_and_no_more(
    redis_users: dict[str, str], database_url: str
) -> None:
    now = datetime.now(UTC)

    async def receive(event: Received) -> Health:
        queue = EventQueue(redis_users["receiver"])
        await queue.flush([event])
        health = await queue.look()
        await queue.close()
        return health

    assert asyncio.run(receive(received(paid(int(now.timestamp()))))).depth == 1
    with Redis.from_url(redis_users["receiver"]) as receiver, Redis.from_url(redis_users["worker"]) as worker:
        assert durability_problems(receiver) == []
        with pytest.raises(NoPermissionError):
            receiver.lrange(f"rq:queue:{EVENTS}", 0, -1)
        with pytest.raises(NoPermissionError):
            worker.flushall()
        process = Process(Stores(database_url, redis_users["worker"]), worker, Rules(), configure({})[0], "tests")
        start(process)
        run(process.queue(EVENTS), process, burst=True)
        assert process.conn().execute("SELECT count(*) FROM events").fetchone() == (1,)
        process.drop()


@pytest.fixture
def postgres_users(servers: Servers) -> Iterator[dict[str, str]]:
    """A database of the manual's store user, migrated, and the addresses of all users."""
    create, grant = re.findall(r"```sql\n(.*?)```", section("docs/security.md", "Postgres"), re.DOTALL)
    users = ("billingwatch_store", "billingwatch_judge", "billingwatch_people")
    urls = {user: servers.database_url.replace("postgres@/billingwatch", f"{user}@/manual") for user in users}
    with connect(servers.database_url, "tests") as conn:
        try:
            for statement in create.replace("DATABASE billingwatch ", "DATABASE manual ").split(";\n"):
                conn.execute(statement)
            migrate(urls["billingwatch_store"])
            with connect(urls["billingwatch_store"], "tests") as store:
                store.execute(grant)
            yield urls
        finally:
            conn.execute("DROP DATABASE IF EXISTS manual WITH (FORCE)")
            for user in users:
                conn.execute(f"DROP ROLE IF EXISTS {user}")


def test_the_postgres_users_of_the_manual_can_do_their_work_and_no_more(
    postgres_users: dict[str, str], redis: Redis, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    moment = int(now.timestamp())
    with connect(postgres_users["billingwatch_store"], "tests") as store:
        events = [paid(moment - 3 * DAY), *(failed(moment - n * MINUTE) for n in range(30))]
        assert record(store, [received(each) for each in events], now).new == 31
    plan = configure({})[0].of("default")
    with connect(postgres_users["billingwatch_judge"], "tests") as judge:
        assert learn(judge, LIVE, now, plan)
        assert evaluate(judge, LIVE, now, plan, Policy()) == 1
    stores = Stores(postgres_users["billingwatch_judge"], redis_url)
    process = Process(stores, redis, Rules(), configure({})[0], "tests", base_url="https://bw.example")
    assert drain(process, "console", lambda: now + timedelta(seconds=HOUR)) == 1
    process.drop()
    with connect(postgres_users["billingwatch_judge"], "tests") as judge:
        for statement in ("DELETE FROM events", "SELECT FROM quarantine", "DROP TABLE rollups"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                judge.execute(statement)
    assert "payments failing" in capsys.readouterr().out
    with connect(postgres_users["billingwatch_people"], "tests") as people:
        (incident,) = incidents.read_all(people)
        with people.transaction():
            assert acts.ack(people, incident.id, "ada", now).done
            assert acts.snooze(people, incident.id, timedelta(hours=1), "ada", now).done
            assert acts.feedback(people, incident.id, "expected", "ada", now).done
            assert acts.feedback(people, incident.id, "confirmed", "ada", now).done
            assert acts.resolve(people, incident.id, "ada", now).done
            assert links.use(people, "nonce", "ack", now)
            assert links.key(people)
        for statement in (
            "SELECT FROM events",
            "SELECT FROM quarantine",
            "DELETE FROM audit",
            "UPDATE keys SET name = ''",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                people.execute(statement)
