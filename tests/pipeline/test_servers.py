"""The embedded servers of `billingwatch up` belong to one of it at a time."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from billingwatch.cli.up import servers
from billingwatch.store.connection import connect


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="billingwatch-up-"))
    path.chmod(0o755)  # root's Postgres runs as another user, who must be able to enter
    yield path
    shutil.rmtree(path)


def test_a_second_up_refuses_instead_of_stopping_the_servers_under_the_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # It used to find the running servers, and to stop them on its way out, as when its port was taken.
    with servers(folder, {}) as environment:
        with pytest.raises(SystemExit, match="1"), servers(folder, {}):
            raise AssertionError("two hold one folder")
        assert "Another BillingWatch runs on the servers" in capsys.readouterr().err
        with connect(environment["DATABASE_URL"], "tests") as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_data_folder_that_cannot_be_made_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"), servers(Path("/dev/null/data"), {}):
        raise AssertionError("a folder in a file")
    assert capsys.readouterr().err.startswith("Cannot write in /dev/null/data: Not a directory.")
