"""Servers that are killed on purpose, apart from those of the other tests; a rig on them for each test."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from billingwatch import embedded
from tests.faults.rig import Rig, fresh, make_template
from tests.faults.sender import Post, make_posts

_names = itertools.count(1)


@pytest.fixture(scope="session")
def ground() -> Iterator[Path]:
    """The folder of a Postgres and a Valkey whose settings let what they have acknowledged outlive a kill."""
    with tempfile.TemporaryDirectory(prefix="billingwatch-faults-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # root's Postgres runs as another user, who must be able to enter
        try:
            make_template(folder)
            yield folder
        finally:
            embedded.stop_valkey(folder)
            embedded.stop_postgres(folder)


@pytest.fixture
def rig(ground: Path) -> Iterator[Rig]:
    rig = fresh(ground, f"faults_{next(_names)}")
    yield rig
    rig.close()


@pytest.fixture(scope="session")
def posts() -> list[Post]:
    """More distinct events than any test sends."""
    return make_posts(12_000)
