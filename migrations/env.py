"""Run the migrations in one transaction under a lock, so that two releases started together do it once."""

from alembic import context
from sqlalchemy import create_engine, pool, text

LOCK = 0x42696C6C  # "Bill"; any constant that only migrations use


def run() -> None:
    # psycopg's dialect understands libpq's addresses, sockets in `?host=` included.
    url = context.config.attributes["database_url"].replace("postgres://", "postgresql://", 1)
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, transaction_per_migration=False)
        with context.begin_transaction():
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            context.run_migrations()


run()
