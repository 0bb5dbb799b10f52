"""`billingwatch migrate`: the newest schema."""

import os
import sys
from collections.abc import Mapping

import click
from sqlalchemy.exc import OperationalError

from billingwatch.cli.start import begin
from billingwatch.schema import migrate as migrate_database
from billingwatch.settings import read_database


@click.command()
def migrate() -> None:
    """Bring the database to the newest schema. Safe to run at every start, and by several at once."""
    begin()
    bring_up_to_date(os.environ)
    click.echo("The database has the newest schema.")


def bring_up_to_date(environment: Mapping[str, str]) -> None:
    """The newest schema; ends with 1 where the database does not answer."""
    try:
        migrate_database(read_database(environment))
    except OperationalError:
        click.echo("Postgres does not answer at DATABASE_URL. Is it running?", err=True)
        sys.exit(1)
