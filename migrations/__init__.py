"""Alembic's environment: `env.py` runs it, `versions/` holds the steps, each one plain SQL beside a short revision."""
