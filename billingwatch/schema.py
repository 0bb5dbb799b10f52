"""Bring a database to the newest schema, and say whether it is there."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import Connection
from psycopg.errors import UndefinedTable

import migrations


def migrate(database_url: str) -> None:
    """Run every migration not yet run, in one transaction; started twice at once it runs once."""
    config = _config()
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


def pending(conn: Connection) -> bool:
    """Whether the database lacks a migration that this program knows; a newer database is fine."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    try:
        with conn.transaction():
            row = conn.execute("SELECT version_num FROM alembic_version").fetchone()
    except UndefinedTable:
        return True
    head = ScriptDirectory.from_config(_config()).get_current_head()
    return row is None or (row[0] in known and row[0] != head)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    return config
