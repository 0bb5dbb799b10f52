"""Whether a server lives: it inherits a lock that only its death lets go.

A pid in a file may have been given to another process, and a killed child stays as a zombie; a lock that the kernel
holds for the server and its children knows neither trouble. It also holds when whoever started the server was killed.
Knows no database: what "ready" means is an argument.
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from billingwatch.embedded.place import EmbeddedError, Home

PATIENCE = 30.0  # seconds for a server to answer, or to stop
PAUSE, LONGEST_PAUSE = 0.005, 0.2  # seconds between two looks: the first and the last
LOG_LIMIT = 8 << 20  # bytes; a longer log is set aside at the next start
TAIL = 2000  # characters of a log that an error shows


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Hold the right to start or stop the server of `home`; EmbeddedError when another keeps it for too long."""
    descriptor = _open_own(home / "start.lock")
    try:
        if not _wait(lambda: _try_lock(descriptor, fcntl.LOCK_EX), 2 * PATIENCE):
            raise EmbeddedError(f"another process has been starting or stopping the server in {home} for a minute")
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough where another thread has forked meanwhile
    finally:
        os.close(descriptor)


def is_alive(home: Path) -> bool:
    """Whether the server of `home`, or a child that it left behind, still runs."""
    try:
        descriptor = os.open(home / "pulse", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise EmbeddedError(f"{home} belongs to another user. Choose another data folder, or be that user") from error
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def read_sockets(home: Path) -> Path | None:
    """The folder of the socket at which the last server of `home` was told to listen; None before the first one."""
    try:
        text = (home / "pulse").read_bytes()
    except FileNotFoundError:
        return None
    return Path(os.fsdecode(text)) if text else None


def launch(home: Home, command: Sequence[str | Path], sockets: Path) -> int:
    """Start `command` in a session of its own, output to `server.log`; answer how long that log was before, in bytes.

    The session keeps a terminal's Ctrl-C from it, so that whoever uses the server can be stopped first. Its environment
    is bare: ours holds secrets, and may hold PGPORT and the like.
    """
    log_path = home.path / "server.log"
    if log_path.exists() and log_path.stat().st_size > LOG_LIMIT:
        log_path.replace(home.path / "server.log.1")
    account = home.account
    descriptors: list[int] = []
    try:
        pulse = _open_own(home.path / "pulse")
        descriptors.append(pulse)
        # is_alive() may be holding it for a moment
        if not _wait(lambda: _try_lock(pulse, fcntl.LOCK_EX), PATIENCE):
            raise EmbeddedError(f"a server is still running in {home.path}")
        os.ftruncate(pulse, 0)
        os.write(pulse, os.fsencode(sockets))
        log = _open_own(log_path)
        descriptors.append(log)
        length = os.lseek(log, 0, os.SEEK_END)
        process = subprocess.Popen(
            [os.fspath(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=bare_environment(),
            pass_fds=(pulse,),
            start_new_session=True,
            umask=0o077,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except OSError as error:
        raise EmbeddedError(f"cannot start {Path(command[0]).name} in {home.path}: {error.strerror}") from error
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    process.returncode = 0  # it is to outlive this object, which would warn about that; reap() waits for it
    return length


def bare_environment() -> dict[str, str]:
    """What a server needs of our environment. The locale is fixed: by it macOS starts threads, and messages differ."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C"}


def settle(home: Path, ready: Callable[[], bool]) -> bool:
    """Wait until the server of `home` is ready (True) or dead (False); EmbeddedError when it is neither in time.

    It is left running then: it may be recovering, which takes as long as it takes.
    """
    if _wait(lambda: ready() or not is_alive(home), PATIENCE):
        return is_alive(home)
    raise EmbeddedError(
        f"the server in {home} runs but has not answered for {PATIENCE:.0f} s. If it is recovering after a crash,"
        f" give it time and start again; {read_tail(home / 'server.log')}"
    )


def stop(home: Path, find_pid: Callable[[], int | None], *signals: signal.Signals) -> None:
    """Send each of `signals` in turn until the server of `home` and its children are gone.

    Raises EmbeddedError when they outlast the last one.
    """
    # a server whose starter was killed may not have written its pid yet
    _wait(lambda: find_pid() is not None or not is_alive(home), PATIENCE)
    pid = find_pid()
    for number in signals:
        if pid is not None and is_process(pid):
            os.kill(pid, number)
        if _wait(lambda: not is_alive(home), PATIENCE):
            if pid is not None:
                reap(pid)
            return
    raise EmbeddedError(f"the server in {home} does not stop; {read_tail(home / 'server.log')}")


def reap(pid: int, seconds: float = 2.0) -> None:
    """Take a dead server off the process table where it is a child of ours; of others' children that is init's work.

    Nobody waits for init: it may take seconds, or never do it, as in a container whose first process is no init.
    """

    def gone() -> bool:
        try:
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            return True

    _wait(gone, seconds)


def is_process(pid: int) -> bool:
    """Whether any process has this id; whose it is the id cannot tell."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_tail(log: Path, since: int = 0) -> str:
    """The end of a server's log, from byte `since` at the earliest, as half a sentence for an error."""
    try:
        text = log.read_bytes()[since:].decode(errors="replace").strip()
    except OSError:
        text = ""
    if not text:
        return f"its log {log} says nothing"
    return f"the end of its log {log}:\n{text[-TAIL:]}"


def _open_own(path: Path) -> int:
    """Open for writing a file of ours, made if need be, for the folder's owner even where we are root."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(path, flags)
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise EmbeddedError(f"cannot write {path}: {error.strerror}. Choose another data folder") from error
    return descriptor


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    pause = PAUSE
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.3, LONGEST_PAUSE)
    return True
