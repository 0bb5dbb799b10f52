"""The command as people and scripts use it: what it prints, what it keeps to itself, and how it ends."""

import base64
import json
import os
import pickle
import re
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from psycopg import Connection
from redis import Redis

import billingwatch
from billingwatch import __version__
from billingwatch.cli import COMMANDS, main
from billingwatch.queues import EVENTS, QUEUES, Queue, enqueue_events
from billingwatch.schema import pending
from billingwatch.store import quarantine
from billingwatch.store.quarantine import Refusal
from tests.conftest import Servers
from tests.factories import NOON, paid, received
from tests.pipeline.command import run, succeed
from tests.pipeline.sink import listening
from tests.waiting import PATIENCE, until
from worker.process import Process, start
from worker.runner import Runner

SECRET = "whsec_do_not_tell_anyone"
PASSWORD = "open sesame"
AWAY_DATABASE = "postgresql://ada:hunter2@127.0.0.1:1/none"
AWAY_REDIS = "redis://:hunter2@127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own settings, and no file in the working folder."""
    for name in os.environ:
        if name.startswith(("STRIPE_", "BILLINGWATCH_", "DATABASE_", "REDIS_", "LOG_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> None:
    """The environment names this test's servers and a secret."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)


# --- help and usage ---------------------------------------------------------------------------------------------------


def walk(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and subcommand, as its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))


assert isinstance(main, click.Group)


@pytest.mark.parametrize("words", [(), *walk(main)], ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    said = succeed(*words, "--help")
    assert said.startswith("Usage:")
    assert len(said.splitlines()) > 3
    assert succeed(*words, "-h") == said


def test_help_lists_every_command() -> None:
    said = succeed("--help")
    assert all(f"  {name} " in said for name in COMMANDS)


def test_version_is_told_both_ways_and_by_the_module() -> None:
    assert succeed("version").strip() == succeed("--version").strip() == __version__
    command, root = [sys.executable, "-m", "billingwatch", "version"], Path(billingwatch.__file__).parents[1]
    told = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == __version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["worker"],
        ["worker", "nonsense"],
        ["worker", "events", "--processes", "0"],
        ["ingest", "--port", "70000"],
        ["clock", "--every", "0"],
        ["incidents", "show", "first"],
        ["quarantine", "retry"],
        ["quarantine", "retry", "--all", "1"],
        ["notify", "test", "nobody"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("stores")
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Error" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["worker", "events"], ["clock"], ["migrate"], ["incidents"], ["quarantine"], ["ingest"], ["dashboard"]],
)
def test_without_its_settings_a_command_ends_with_2_and_names_them(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "is not set (" in result.stderr


@pytest.mark.parametrize("arguments", [["migrate"], ["incidents"], ["quarantine"]])
def test_database_that_does_not_answer_ends_with_1_and_its_password_is_not_told(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", AWAY_DATABASE)
    result = run(*arguments)
    assert result.exit_code == 1
    assert "Postgres does not answer at DATABASE_URL" in result.stderr
    assert "hunter2" not in result.output


# --- check ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stores")
def test_check_says_that_all_is_well() -> None:
    said = succeed("check")
    assert "FAIL" not in said
    assert "receiver: /webhook/default (1 secret)" in said
    assert "newest schema" in said
    assert "durable" in said
    assert SECRET not in said
    found = json.loads(succeed("check", "--json"))
    assert found["ok"] is True
    assert {"what", "ok", "says"} == {key for finding in found["findings"] for key in finding}


@pytest.mark.usefixtures("stores")
def test_check_reports_every_mistake_of_environment_and_rules_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        """
        colour = "blue"
        [channels]
        ops = "nonsense://token-of-ops-1234"
        pager = "env:PAGER_URL"
        [route]
        channels = ["ops", "nobody"]
        [detectors.refund_spike]
        factor = "three"
        [detectors.telepathy]
        """
    )
    monkeypatch.setenv("BILLINGWATCH_CONFIG", str(rules))
    monkeypatch.setenv("LOG_LEVEL", "shout")
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "")
    result = run("check")
    assert result.exit_code == 2
    failures = "\n".join(line for line in result.stdout.splitlines() if line.startswith("FAIL"))
    for place in ("LOG_LEVEL", "STRIPE_WEBHOOK_SECRET", "colour", "PAGER_URL", "nobody", "refund_spike", "telepathy"):
        assert place in failures
    assert "token-of-ops-1234" not in result.output


@pytest.mark.usefixtures("stores")
def test_check_masks_what_channels_keep_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "BILLINGWATCH_APPRISE_URLS",
        "json://ada:hunter2@127.0.0.1:9/token slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/",
    )
    said = succeed("check")
    assert "json://" in said
    assert "slack://" in said
    assert not re.search("hunter2|token|T1JJ3T3L2|TIiajk", said)


@pytest.mark.parametrize(
    ("name", "url", "says"),
    [("DATABASE_URL", AWAY_DATABASE, "Postgres: does not answer"), ("REDIS_URL", AWAY_REDIS, "Redis: does not answer")],
)
@pytest.mark.usefixtures("stores")
def test_check_ends_with_1_where_a_server_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, says: str
) -> None:
    monkeypatch.setenv(name, url)
    result = run("check")
    assert result.exit_code == 1
    assert f"FAIL  {says}" in result.stdout
    assert "hunter2" not in result.output


@pytest.mark.usefixtures("stores")
def test_check_finds_an_old_schema_and_a_forgetful_redis(conn: Connection, redis: Redis) -> None:
    conn.execute("DELETE FROM alembic_version")
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        result = run("check")
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    assert result.exit_code == 1
    assert "billingwatch migrate" in result.stdout
    assert "set noeviction" in result.stdout


def test_check_without_any_server_is_told_that_up_brings_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)
    said = succeed("check")
    assert said.count("`billingwatch up` brings its own") == 2


@pytest.mark.usefixtures("stores")
def test_migrate_brings_the_schema_and_may_run_again(conn: Connection) -> None:
    conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    assert pending(conn)
    for _ in range(2):
        assert "newest schema" in succeed("migrate")
    assert not pending(conn)


# --- quarantine -------------------------------------------------------------------------------------------------------


@pytest.fixture
def held(conn: Connection) -> list[int]:
    """One that is fine by now, and one that never will be; their ids."""
    fine = received(paid(int(NOON.timestamp())))
    quarantine.hold(
        conn,
        [
            Refusal(fine.source, fine.received_at, fine.body, "its job failed: ValueError"),
            Refusal("default", NOON.timestamp(), b'{"email": "ada@example.com"}', "no Stripe event"),
        ],
    )
    return [row.id for row in quarantine.read_all(conn)]


@pytest.mark.usefixtures("stores")
def test_quarantine_of_a_new_installation() -> None:
    assert succeed("quarantine") == "The quarantine is empty.\n"
    assert json.loads(succeed("quarantine", "list", "--json")) == []


@pytest.mark.usefixtures("stores", "held")
def test_quarantine_is_listed_without_what_is_in_it() -> None:
    for said in (succeed("quarantine"), succeed("quarantine", "list", "--json")):
        assert "no Stripe event" in said
        assert "ada@example.com" not in said
    assert [row["bytes"] > 0 for row in json.loads(said)] == [True, True]


@pytest.mark.usefixtures("stores")
def test_retried_rows_go_through_the_pipeline_and_what_is_refused_again_comes_back(
    process: Process, conn: Connection, held: list[int]
) -> None:
    assert succeed("quarantine", "retry", "--all") == "2 of 2 rows are on their way again.\n"
    assert quarantine.read_all(conn) == []
    start(process)
    Runner(process.queue(EVENTS), process).work(burst=True, logging_level="WARNING")
    assert conn.execute("SELECT count(*) FROM events").fetchone() == (1,)
    (back,) = quarantine.read_all(conn)
    assert back.reason.startswith("no Stripe event")


@pytest.mark.usefixtures("stores")
def test_one_row_is_retried_and_one_that_is_not_there_ends_with_1(conn: Connection, held: list[int]) -> None:
    result = run("quarantine", "retry", str(held[0]), "404")
    assert (result.exit_code, result.stdout) == (1, "1 of 2 rows are on their way again.\n")
    assert [row.id for row in quarantine.read_all(conn)] == held[1:]


@pytest.mark.usefixtures("stores", "held")
def test_rows_stay_where_they_are_while_redis_is_away(monkeypatch: pytest.MonkeyPatch, conn: Connection) -> None:
    monkeypatch.setenv("REDIS_URL", AWAY_REDIS)
    result = run("quarantine", "retry", "--all")
    assert result.exit_code == 1
    assert "Redis does not answer" in result.stderr
    assert len(quarantine.read_all(conn)) == 2


# --- notify -----------------------------------------------------------------------------------------------------------


def test_test_message_arrives_and_is_marked_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as sink:
        monkeypatch.setenv("BILLINGWATCH_APPRISE_URLS", sink.url)
        assert succeed("notify", "test") == "default: sent\n"
        (told,) = json.loads(succeed("notify", "test", "default", "--json"))
        assert (told["channel"], told["ok"], told["via"], told["error"]) == ("default", True, "direct", "")
        assert told["url"] == f"json://127.0.0.1:{sink.port}/****"
        assert len(sink.posted) == 2
        assert all("TEST" in title for title in sink.titles())


def test_channel_that_refuses_ends_with_1_and_the_other_still_hears(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with listening() as good, listening() as bad:
        bad.status = 404
        rules = f'[channels]\nbad = "{bad.url}"\ngood = "{good.url}"\n'
        (tmp_path / "billingwatch.toml").write_text(rules)
        result = run("notify", "test")
        assert result.exit_code == 1
        assert "bad: FAILED: " in result.stdout
        assert "404" in result.stdout
        assert "good: sent" in result.stdout
        assert len(good.posted) == 1


def test_without_a_channel_the_test_message_is_printed() -> None:
    said = succeed("notify", "test")
    assert "TEST from BillingWatch" in said
    assert "console: sent" in said


# --- dashboard --------------------------------------------------------------------------------------------------------


class Dashboard:
    """RQ's dashboard as a process of its own."""

    def __init__(self, base: str) -> None:
        self.base = base

    def get(self, path: str, password: str | None = PASSWORD, method: str = "GET", **headers: str) -> tuple[int, str]:
        """(status, text)."""
        if password is not None:
            credentials = base64.b64encode(f"admin:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {credentials}"
        request = urllib.request.Request(self.base + path, headers=headers, method=method)  # noqa: S310 - our own http
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture(scope="module")
def dashboard(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    said = tmp_path_factory.mktemp("dashboard") / "stderr.txt"
    environment = {**os.environ, "REDIS_URL": servers.redis_url, "BILLINGWATCH_CONSOLE_PASSWORD": PASSWORD}
    with said.open("wb") as log:
        command = [sys.executable, "-m", "billingwatch", "dashboard", "--port", "0"]
        process = subprocess.Popen(command, env=environment, stderr=log)
    try:
        address = until(lambda: re.search(r"http://127\.0\.0\.1:\d+", said.read_text()))
        yield Dashboard(address[0])
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.parametrize("password", [None, "", "open sesam", "open sesame ", "é"])
@pytest.mark.parametrize("path", ["/", "/0/data/queues.json", "/static/js/none.js"])
def test_dashboard_shows_nothing_without_the_password(dashboard: Dashboard, path: str, password: str | None) -> None:
    status, text = dashboard.get(path, password)
    assert (status, text) == (401, "The password, please.")


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Bearer open sesame", "basic YWRtaW4="])
def test_dashboard_takes_no_half_credentials(dashboard: Dashboard, header: str) -> None:
    assert dashboard.get("/", None, Authorization=header)[0] == 401


def test_dashboard_is_not_for_other_sites(dashboard: Dashboard) -> None:
    """Some of its GETs change state, and a browser would send the password along."""
    assert dashboard.get("/", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert dashboard.get("/", **{"Sec-Fetch-Site": "same-origin"})[0] == 200


def test_dashboard_lists_our_queues_and_shows_a_job_without_its_events(dashboard: Dashboard, redis: Redis) -> None:
    for name in QUEUES:
        redis.sadd("rq:queues", f"rq:queue:{name}")
    private = paid(int(NOON.timestamp()))
    private["data"]["object"]["receipt_email"] = "ada@example.com"
    enqueue_events(Queue(EVENTS, redis), [received(private)] * 3)
    (job_id,) = Queue(EVENTS, redis).get_job_ids()

    status, page = dashboard.get("/")
    assert (status, "RQ" in page) == (200, True)
    queues = {each["name"]: each for each in read(dashboard, "/0/data/queues.json")["queues"]}
    assert queues.keys() == set(QUEUES)
    assert queues[EVENTS]["count"] == 1

    jobs = dashboard.get(f"/0/data/jobs/{EVENTS}/queued/10/asc/1.json")[1]
    assert [job["description"] for job in json.loads(jobs)["jobs"]] == ["record 3 events"]
    job = dashboard.get(f"/0/data/job/{job_id}.json")[1]
    assert "3 events" in job
    for shown in (page, jobs, job):
        assert "ada@example.com" not in shown
        assert private["id"] not in shown


def test_dashboard_unpickles_nothing_that_stands_in_redis(dashboard: Dashboard, redis: Redis, tmp_path: Path) -> None:
    """Half of rq-dashboard's pages fetch jobs with RQ's default serializer."""
    mark = tmp_path / "unpickled.txt"
    explosive = pickle.dumps(Explosive(mark))
    fields = {
        "data": zlib.compress(explosive),
        "meta": explosive,
        "result": explosive,
        "origin": EVENTS,
        "status": "queued",
    }
    redis.hset("rq:job:planted", mapping=fields)  # type: ignore[arg-type]
    redis.sadd("rq:queues", f"rq:queue:{EVENTS}")
    redis.rpush(f"rq:queue:{EVENTS}", "planted")
    redis.sadd("rq:workers", "rq:worker:w")
    redis.hset("rq:worker:w", mapping={"queues": EVENTS, "state": "busy", "current_job": "planted"})
    for path in (
        "/0/view/job/planted",
        "/0/data/job/planted.json",
        f"/0/data/jobs/{EVENTS}/queued/10/asc/1.json",
        "/0/data/workers.json",
    ):
        dashboard.get(path)
        assert not mark.exists(), path


def test_dashboard_requeues_a_failed_job_and_a_worker_can_read_it(
    dashboard: Dashboard, process: Process, conn: Connection
) -> None:
    queue = process.queue(EVENTS)
    enqueue_events(queue, [received(paid(int(NOON.timestamp())))])
    (job,) = queue.get_jobs()
    queue.remove(job)
    job.retries_left = 0
    job.save()
    Runner(queue, process).handle_job_failure(job, queue, exc_string="ValueError: x")
    assert dashboard.get(f"/job/{job.id}/requeue", method="POST")[0] == 200
    start(process)
    Runner(queue, process).work(burst=True, logging_level="WARNING")
    assert conn.execute("SELECT count(*) FROM events").fetchone() == (1,)


class Explosive:
    """Pickled, it is a command that runs when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def read(dashboard: Dashboard, path: str) -> dict[str, Any]:
    status, text = dashboard.get(path)
    assert status == 200
    found: dict[str, Any] = json.loads(text)
    return found
