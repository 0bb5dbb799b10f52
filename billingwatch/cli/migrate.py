"""`billingwatch migrate`: the newest schema."""

import os
import sys

import click
from sqlalchemy.exc import OperationalError

from billingwatch.cli.start import begin
from billingwatch.schema import migrate as migrate_database
from billingwatch.settings import read_database


@click.command()
def migrate() -> None:
    """Bring the database to the newest schema. Safe to run at every start, and by several at once."""
    begin()
    try:
        migrate_database(read_database(os.environ))
    except OperationalError:
        click.echo("Postgres does not answer at DATABASE_URL. Is it running?", err=True)
        sys.exit(1)
    click.echo("The database has the newest schema.")
