"""Real servers from wheels, for `up`, `demo` and the tests, where DATABASE_URL and REDIS_URL are unset.

Start, find again and stop; nothing about what is kept in them. Outside the folder asked for it changes no file and no
mode, but for a socket's folder under the temporary folder where the path is too long, and root's data in
`place.SHELTER` where the user who runs Postgres cannot enter the folder.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

from billingwatch.embedded.place import EmbeddedError
from billingwatch.embedded.postgres import postgres_pid, start_postgres, stop_postgres
from billingwatch.embedded.valkey import start_valkey, stop_valkey, valkey_pid

__all__ = [
    "EmbeddedError",
    "Servers",
    "find",
    "postgres_pid",
    "serve",
    "start_postgres",
    "start_valkey",
    "stop_postgres",
    "stop_valkey",
    "valkey_pid",
]


class Servers(Struct, frozen=True):
    """Where both listen, as DATABASE_URL and REDIS_URL would say it."""

    database_url: str
    redis_url: str


@contextmanager
def serve(folder: Path) -> Iterator[Servers]:
    """Both servers of `folder`, started or found; on the way out both are stopped, whoever started them.

    Raises EmbeddedError where one does not start or stop; the other is stopped all the same.
    """
    with ExitStack() as stack:
        stack.callback(stop_postgres, folder)
        database_url = start_postgres(folder)
        stack.callback(stop_valkey, folder)
        yield Servers(database_url, start_valkey(folder))


def find(folder: Path) -> Servers | None:
    """Both servers of `folder` where they run, whoever started them; None, and nothing is started, where they do not.

    Raises EmbeddedError where they are not ours to use.
    """
    if postgres_pid(folder) is None or valkey_pid(folder) is None:
        return None
    return Servers(start_postgres(folder), start_valkey(folder))
