"""Run child processes, restart whoever dies, and stop them in order. Children never outlive their supervisor."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping

import structlog
from msgspec import Struct

log = structlog.get_logger(__name__)

PARENT = "BILLINGWATCH_PARENT"  # a pipe's read end; it ends when the supervisor does, however it died
GRACE = 40.0  # seconds a child has to finish what it does; above every job's time limit
STEADY = 30.0  # seconds of life after which a restart is immediate again
LONGEST_PAUSE = 10.0  # seconds between restarts of a child that keeps dying


class Command(Struct, frozen=True):
    """A child to run: its name in the logs, and the arguments of `billingwatch`."""

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = {}
    descriptors: tuple[int, ...] = ()  # open files it inherits


class _Child(Struct):
    command: Command
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = 0.0


class Supervisor:
    """Keeps the commands running until `stop`."""

    def __init__(self, commands: Iterable[Command], environment: Mapping[str, str]) -> None:
        self._children = [_Child(command) for command in commands]
        self._environment = dict(environment)
        self._read, self._write = os.pipe()

    def pids(self) -> dict[str, int]:
        """The running children's process ids by name."""
        return {
            child.command.name: child.process.pid for child in self._children if child.process and _lives(child.process)
        }

    def run(self, stop: threading.Event) -> None:
        """Start everything, restart what dies, until `stop` is set; then stop everything."""
        try:
            while not stop.is_set():
                self.run_once(time.monotonic())
                stop.wait(0.1)
        finally:
            self.shut_down()

    def run_once(self, now: float) -> None:
        """Start the children that do not run and whose pause is over."""
        for child in self._children:
            if child.process is not None and _lives(child.process):
                continue
            if child.process is not None:
                lived = now - child.started
                child.pause = 0.0 if lived > STEADY else min(LONGEST_PAUSE, max(0.25, child.pause * 2))
                log.warning("child_died", child=child.command.name, code=child.process.returncode, pause=child.pause)
                child.process, child.started = None, now
            if now >= child.started + child.pause:
                child.process = self._start(child.command)
                child.started = now

    def shut_down(self) -> None:
        """Ask the children to stop, in order; kill what does not within GRACE seconds."""
        for child in self._children:
            if child.process is not None and _lives(child.process):
                child.process.terminate()
        end = time.monotonic() + GRACE
        for child in self._children:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("child_killed", child=child.command.name)
                child.process.kill()
                child.process.wait()

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "billingwatch", *command.arguments],
            env={**self._environment, **command.environment, PARENT: str(self._read)},
            pass_fds=(self._read, *command.descriptors),
            # Ctrl-C reaches the whole terminal group; the children stop when and in the order we say.
            start_new_session=True,
        )


def die_with_parent() -> None:
    """In a child: stop as by SIGTERM when the supervisor is gone. Without a supervisor it does nothing."""
    descriptor = os.environ.pop(PARENT, "")
    if not descriptor:
        return

    def watch() -> None:
        while os.read(int(descriptor), 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set. A second Ctrl-C changes nothing: stopping is under way."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _lives(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None
