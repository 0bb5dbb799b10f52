"""What workers and commands change in the process that runs them is put back after each test."""

import logging
import signal
from collections.abc import Iterator

import pytest

from tests.pipeline.senders import answering, closed_port, moody, smtp

__all__ = ["answering", "closed_port", "moody", "smtp"]


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """RQ's workers take SIGINT and SIGTERM for themselves and keep them."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Commands send the logs of the whole process to a stream that ends with them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
