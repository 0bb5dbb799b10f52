"""The deployment files say what the command line can do, and keep the promises the queue depends on."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from honcho.environ import parse_procfile

ROOT = Path(__file__).parents[2]
QUEUES = {"events", "evaluate", "alerts"}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|APPRISE_URLS")
Command = list[str]


def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def services() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = compose()["services"]
    return loaded


def ours() -> dict[str, dict[str, Any]]:
    """The services that run our image; their `command` follows its entrypoint, `billingwatch`."""
    return {name: service for name, service in services().items() if service["image"] == "billingwatch"}


def procfile() -> dict[str, str]:
    return dict(parse_procfile((ROOT / "Procfile").read_text()).processes)


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and their arguments, continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in lines]


def commands() -> Iterator[tuple[str, Command]]:
    """Where a command is named, and its words after `billingwatch`."""
    for name, service in ours().items():
        yield f"compose:{name}", service["command"]
    for name, line in procfile().items():
        program, *words = shlex.split(line)
        assert program == "billingwatch", line
        yield f"Procfile:{name}", words
    last = dict(dockerfile())
    start: Command = json.loads(last["ENTRYPOINT"]) + json.loads(last["CMD"])
    program, *words = start
    assert program == "billingwatch"
    yield "Dockerfile", words


COMMANDS = dict(commands())


def queues(words: Command) -> list[str]:
    """The queue names of a `worker` command: its words before the first option."""
    names = []
    for word in words[1:]:
        if word.startswith("-"):
            break
        names.append(word)
    return names


def environment(service: dict[str, Any]) -> dict[str, str | None]:
    loaded: dict[str, str | None] = service.get("environment", {})
    return loaded


@pytest.mark.parametrize("place", COMMANDS)
def test_every_command_named_is_one_the_command_line_takes(place: str) -> None:
    from billingwatch.cli import main

    name, *words = COMMANDS[place]
    with click.Context(main) as parent:
        assert name in main.list_commands(parent)
        command = main.get_command(parent, name)
        assert command is not None
        # Parses words and options as a start would, and runs nothing.
        command.make_context(name, words, parent=parent)


def test_each_place_names_every_process() -> None:
    processes = {"ingest", "worker events", "worker evaluate", "worker alerts", "clock", "console", "migrate"}
    from_compose = {" ".join(words[: 1 + len(queues(words))]) for p, words in COMMANDS.items() if "compose" in p}
    from_procfile = {" ".join(words[: 1 + len(queues(words))]) for p, words in COMMANDS.items() if "Procfile" in p}
    assert from_procfile == processes
    assert from_compose == {*processes, "dashboard"}


@pytest.mark.parametrize("place", [place for place, words in COMMANDS.items() if words[0] == "worker"])
def test_a_worker_listens_on_one_queue(place: str) -> None:
    # On two queues RQ pops a job before it is on any list of running ones: a kill between the two loses it.
    names = queues(COMMANDS[place])
    assert len(names) == 1
    assert set(names) <= QUEUES


def test_every_queue_has_a_worker_in_both_places() -> None:
    for prefix in ("compose:", "Procfile:"):
        named = {
            q for p, words in COMMANDS.items() if p.startswith(prefix) and words[0] == "worker" for q in queues(words)
        }
        assert named == QUEUES, prefix


def test_valkey_keeps_what_was_acked() -> None:
    words = services()["valkey"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] in {"always", "everysec"}
    assert options["--maxmemory-policy"] == "noeviction"
    assert re.fullmatch(r"[1-9]\d*(mb|gb)", options["--maxmemory"])
    assert "valkey:/data" in services()["valkey"]["volumes"]


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    read = re.findall(r"\$\{(\w+)([^}]*)\}", text)
    secrets = {name: rest for name, rest in read if SECRET.search(name)}
    assert {"POSTGRES_PASSWORD", "STRIPE_WEBHOOK_SECRET", "BILLINGWATCH_CONSOLE_PASSWORD"} <= secrets.keys()
    for name, rest in read:
        assert not SECRET.search(name) or rest.startswith(":?"), f"{name} has a default or may be empty"


def test_no_secret_stands_in_the_files() -> None:
    for name, service in services().items():
        for variable, value in environment(service).items():
            if SECRET.search(variable):
                # None hands on the variable of the machine, if there is one.
                assert value is None or re.fullmatch(r"\$\{\w+:\?[^}]*\}", value), f"{name}: {variable}"
            assert not re.search(r"://[^/]*:[^/]*@", value or ""), f"{name}: {variable} carries a password"
    for instruction, argument in dockerfile():
        assert instruction not in {"ARG", "ENV"} or not SECRET.search(argument), argument


def test_who_chooses_a_channel_and_who_sends_to_it_know_the_same_ones() -> None:
    chooses, sends = (environment(services()[name]) for name in ("worker-evaluate", "worker-alerts"))
    assert "BILLINGWATCH_APPRISE_URLS" in chooses
    assert chooses == sends


def test_the_receiver_holds_no_database_password() -> None:
    assert not {"DATABASE_URL", "PGPASSWORD"} & environment(services()["ingest"]).keys()


def test_the_dashboard_is_on_loopback_behind_a_password() -> None:
    dashboard = services()["rq-dashboard"]
    assert dashboard["ports"] == ["127.0.0.1:9181:9181"]
    assert str(environment(dashboard)["BILLINGWATCH_CONSOLE_PASSWORD"]).startswith("${BILLINGWATCH_CONSOLE_PASSWORD:?")


def test_only_what_stripe_or_people_ask_has_ports() -> None:
    assert {name for name, service in services().items() if service.get("ports")} == {
        "ingest",
        "console",
        "rq-dashboard",
    }


def test_nothing_starts_before_the_migrations_are_done() -> None:
    for name, service in ours().items():
        if service["command"][0] in {"worker", "clock", "ingest"}:
            assert service["depends_on"]["release"]["condition"] == "service_completed_successfully", name
    assert services()["release"]["restart"] == "no"


def test_every_service_but_release_comes_back_by_itself() -> None:
    assert {name for name, s in services().items() if s["restart"] not in {"always", "unless-stopped"}} == {"release"}


def test_the_events_queue_has_two_workers() -> None:
    assert services()["worker-events"]["deploy"]["replicas"] == 2


def test_the_image_runs_unprivileged_from_the_lock_and_probes_without_curl() -> None:
    instructions = dockerfile()
    last = dict(instructions)
    assert last["USER"] not in {"root", "0"}
    assert "/healthz" in last["HEALTHCHECK"]
    assert "curl" not in (ROOT / "Dockerfile").read_text()
    installs = [argument for name, argument in instructions if name == "RUN" and "pip install" in argument]
    assert installs
    for argument in installs:
        assert "--require-hashes" in argument or "--no-deps" in argument, argument


@pytest.mark.parametrize("name", ["run.txt", "dev.txt", "build.txt"])
def test_a_lock_pins_and_hashes_everything_and_names_no_index(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert "//" not in text
    blocks = re.split(r"\n(?=[a-z])", text[re.search(r"^[a-z]", text, re.MULTILINE).start() :])  # type: ignore[union-attr]
    assert blocks
    for block in blocks:
        assert re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==\S+", block), block
        assert "--hash=sha256:" in block, block


def test_the_locks_agree() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9-]+==\S+", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    assert pins("run.txt") <= pins("dev.txt")
    assert pins("build.txt") <= pins("dev.txt")
