"""Postgres: one module a table, its SQL beside the function that runs it. The caller owns the transaction."""
