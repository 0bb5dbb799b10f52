"""Where the servers are that a command talks to beside a running `billingwatch up`."""

from collections.abc import Mapping
from pathlib import Path

from billingwatch.settings import DATA_DIR, DEFAULT_DATA_DIR

NAMES = ("DATABASE_URL", "REDIS_URL")


def beside(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment; where it names no servers, with those that `up` runs in its data folder, if it does."""
    lacking = [name for name in NAMES if not (environment.get(name) or environment.get(f"{name}_FILE"))]
    if not lacking:
        return dict(environment)
    try:
        from billingwatch import embedded
    except ImportError:
        return dict(environment)
    try:
        found = embedded.find(Path(environment.get(DATA_DIR) or DEFAULT_DATA_DIR))
    except embedded.EmbeddedError:
        found = None
    if found is None:
        return dict(environment)
    own = {"DATABASE_URL": found.database_url, "REDIS_URL": found.redis_url}
    return {**environment, **{name: own[name] for name in lacking}}


def known(environment: Mapping[str, str]) -> bool:
    """Whether both servers are named."""
    return all(environment.get(name) or environment.get(f"{name}_FILE") for name in NAMES)
