"""uvicorn's factory: each receiver process builds its application from the environment."""

import os

from starlette.applications import Starlette

from billingwatch.settings import read_ingest
from ingest.app import build
from ingest.metrics import Metrics
from ingest.queue import EventQueue

FACTORY = "ingest.server:create"
GRACE = 25  # seconds for requests in flight to be answered at shutdown


def create() -> Starlette:
    """Raises ConfigurationError when a setting lacks or is wrong."""
    settings = read_ingest(os.environ)
    return build(settings.sources, EventQueue(settings.redis_url), Metrics())
