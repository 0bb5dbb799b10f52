"""The `billingwatch` command as a person types it, on one test's database and in a folder of its own."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from billingwatch.cli import main


def isolate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Nothing of the machine's own settings, and no file in the working folder."""
    for name in [name for name in os.environ if name.startswith(("BILLINGWATCH_", "DATABASE_", "LOG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)


def run(*arguments: str) -> Result:
    """The command's result; it never ends in a traceback."""
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def succeed(*arguments: str) -> str:
    """What it prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout
