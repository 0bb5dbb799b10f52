"""Where things are, from the environment. Every problem is reported at once, with its place and a hint.

Each process reads only what it needs: the receiver never sees the database's password.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from billingwatch.model import OWN

DEFAULT_SOURCE = "default"
DATA_DIR = "BILLINGWATCH_DATA_DIR"
DEFAULT_DATA_DIR = ".billingwatch"
SECRET = "STRIPE_WEBHOOK_SECRET"  # noqa: S105 - the variable's name
_SOURCE_SECRET = re.compile(rf"{SECRET}_([A-Z0-9_]+)")
_REDIS_SCHEMES = {"redis", "rediss", "unix"}
_POSTGRES_SCHEMES = {"postgres", "postgresql"}


class Problem(Struct, frozen=True, order=True):
    """One thing wrong in the configuration: where it stands, what is wrong, what to do about it."""

    place: str
    fault: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.fault}" + (f" ({self.hint})" if self.hint else "")


class ConfigurationError(Exception):
    """The configuration has problems; `problems` holds every one of them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class Ingest(Struct, frozen=True):
    """What the receiver needs. `sources` maps a source's name to its signing secrets, newest first."""

    redis_url: str
    sources: dict[str, tuple[str, ...]]


class Stores(Struct, frozen=True):
    """Where the workers and the clock keep things."""

    database_url: str
    redis_url: str


class Logs(Struct, frozen=True):
    level: str = "info"
    format: str = "console"


class Environment:
    """Reads variables and collects what is wrong with them; `finish()` raises them together.

    Each secret `NAME` may also come as `NAME_FILE`, the path of a file that holds it.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.problems: list[Problem] = []

    def text(self, name: str, default: str = "", *, hint: str = "") -> str:
        """The variable's value, or its file's; a missing one with no default is a problem."""
        value = self.env.get(name, "").strip()
        path = self.env.get(f"{name}_FILE", "").strip()
        if value and path:
            self.add(name, f"set together with {name}_FILE", "set one of the two")
        elif path:
            try:
                value = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                self.add(f"{name}_FILE", f"cannot be read: {type(error).__name__}", "does the file exist?")
                return default
        if not value and not default and hint:
            self.add(name, "is not set", hint)
        return value or default

    def url(self, name: str, schemes: set[str], *, hint: str) -> str:
        """An address; only its scheme is judged here, and it never stands in an error."""
        value = self.text(name, hint=hint)
        try:
            scheme = urlsplit(value).scheme
        except ValueError:
            scheme = ""
        if value and scheme not in schemes:
            self.add(name, f"is no {' or '.join(sorted(schemes))}:// address", hint)
        return value

    def port(self, name: str, default: int) -> int:
        value = self.text(name, str(default))
        if len(value) <= 5 and value.isascii() and value.isdigit() and int(value) <= 65535:
            return int(value)
        self.add(name, "is no port", "a whole number from 0 to 65535")
        return default

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default).lower()
        if value not in choices:
            self.add(name, f"is none of {', '.join(choices)}", f"the default is {default}")
            return default
        return value

    def add(self, place: str, fault: str, hint: str = "") -> None:
        self.problems.append(Problem(place, fault, hint))

    def finish(self) -> None:
        """Raise ConfigurationError when anything was wrong."""
        if self.problems:
            raise ConfigurationError(self.problems)


def read_ingest(env: Mapping[str, str]) -> Ingest:
    """The receiver's settings; without a single secret it refuses to start."""
    reader = Environment(env)
    redis_url = _redis_url(reader)
    sources = read_sources(reader)
    if not sources and not any(problem.place.startswith(SECRET) for problem in reader.problems):
        reader.add(SECRET, "is not set", "the endpoint's signing secret, whsec_…, from Stripe's dashboard")
    reader.finish()
    return Ingest(redis_url=redis_url, sources=sources)


def read_sources(reader: Environment) -> dict[str, tuple[str, ...]]:
    """`STRIPE_WEBHOOK_SECRET` is the default source's; `STRIPE_WEBHOOK_SECRET_SHOP` that of `/webhook/shop`.

    Several secrets, separated by commas, are all valid: Stripe keeps the old one for up to 24 h while rolling.
    """
    names = {SECRET: DEFAULT_SOURCE}
    for variable in sorted(reader.env):
        match = _SOURCE_SECRET.fullmatch(variable.removesuffix("_FILE"))
        source = match[1].lower().replace("_", "-") if match else ""
        if source == OWN.account:
            reader.add(variable, f"names the source {source}", "that is BillingWatch's own name; choose another")
        elif source == DEFAULT_SOURCE:
            reader.add(variable, "names the default source", f"its secrets stand in {SECRET}, separated by commas")
        elif match:
            names[f"{SECRET}_{match[1]}"] = source
    sources = {}
    for variable, source in names.items():
        secrets = tuple(part.strip() for part in reader.text(variable).split(",") if part.strip())
        if any(len(secret.split()) != 1 for secret in secrets):
            reader.add(variable, "has white space inside a secret", "separate secrets by commas")
        elif secrets:
            sources[source] = secrets
    return sources


def read_stores(env: Mapping[str, str]) -> Stores:
    reader = Environment(env)
    stores = Stores(database_url=_database_url(reader), redis_url=_redis_url(reader))
    reader.finish()
    return stores


def read_database(env: Mapping[str, str]) -> str:
    reader = Environment(env)
    url = _database_url(reader)
    reader.finish()
    return url


def read_redis(env: Mapping[str, str]) -> str:
    reader = Environment(env)
    url = _redis_url(reader)
    reader.finish()
    return url


def read_base_url(env: Mapping[str, str]) -> str:
    """The console's public address without a slash at its end; "" where it has none."""
    reader = Environment(env)
    url = reader.text("BILLINGWATCH_BASE_URL")
    if url:
        reader.url("BILLINGWATCH_BASE_URL", {"http", "https"}, hint="https://billingwatch.example.com")
    reader.finish()
    return url.rstrip("/")


def read_heartbeat_url(env: Mapping[str, str]) -> str:
    """The address that is asked while all is well; "" where there is none. It holds a secret."""
    reader = Environment(env)
    url = reader.text("BILLINGWATCH_HEARTBEAT_URL")
    if url:
        reader.url("BILLINGWATCH_HEARTBEAT_URL", {"http", "https"}, hint="as https://hc-ping.com/UUID")
    reader.finish()
    return url


def read_logs(env: Mapping[str, str]) -> Logs:
    reader = Environment(env)
    logs = Logs(
        level=reader.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
        format=reader.choice("LOG_FORMAT", "console", ("console", "json")),
    )
    reader.finish()
    return logs


def _redis_url(reader: Environment) -> str:
    return reader.url("REDIS_URL", _REDIS_SCHEMES, hint="redis://host:6379/0; `billingwatch up` brings its own")


def _database_url(reader: Environment) -> str:
    return reader.url(
        "DATABASE_URL", _POSTGRES_SCHEMES, hint="postgresql://user@host/billingwatch; `billingwatch up` brings its own"
    )
