"""The `billingwatch` command. Each subcommand's module is imported when it is called: the receiver stays small."""

import importlib
import sys
from typing import Any

import click

from billingwatch import __version__

# name -> (module, one line of help)
COMMANDS = {
    "up": ("up", "Run everything: servers, receiver, workers and clock."),
    "demo": ("demo", "Watch simulated webhooks become alerts, on servers of its own."),
    "ingest": ("ingest", "The receiver of Stripe's webhooks."),
    "worker": ("worker", "Workers on one queue: events, evaluate or alerts."),
    "clock": ("clock", "The one clock: what time alone makes due."),
    "migrate": ("migrate", "Bring the database to the newest schema."),
    "check": ("check", "Check the configuration and the connections."),
    "console": ("console", "The pages that messages link to: see an incident, answer it."),
    "incidents": ("incidents", "List, show, acknowledge and resolve incidents; say what they were."),
    "silence": ("silence", "What is not to be told, for a while or every weekend."),
    "mark": ("mark", "Say what happened or is to come: a deploy, a sale, a new normal."),
    "baseline": ("baseline", "What is expected, and what it was learnt from: why 1.1?"),
    "quarantine": ("quarantine", "What could not be stored: list it, try it again."),
    "digest": ("digest", "Yesterday, or last week, in one message: print it, draw it, send it."),
    "notify": ("notify", "Send a test message to the channels, preview messages."),
    "drill": ("drill", "Plant an incident in the live pipeline, and time each message about it."),
    "replay": ("replay", "Sign and send a file of events to a receiver."),
    "backtest": ("backtest", "What these rules would have told of past events, and how much of it was noise."),
    "simulate": ("simulate", "Make a file of events of an account that never was."),
    "dashboard": ("dashboard", "RQ's dashboard of jobs, behind a password."),
    "version": ("version", "Print the version."),
}


HELP = ["-h", "--help"]


class Commands(click.Group):
    """A group that imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"billingwatch.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        _take_short_help(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Errors that a person can mend are told in one place: what, where, and a hint; exit code 2."""
        from billingwatch.settings import ConfigurationError

        try:
            return super().main(*args, **kwargs)
        except ConfigurationError as error:
            click.echo("The configuration has problems:", err=True)
            for problem in error.problems:
                click.echo(f"  {problem}", err=True)
            sys.exit(2)


def _take_short_help(command: click.Command) -> None:
    """Each command takes -h by itself: click keeps the help option of its first context, with a parent or without."""
    command.context_settings.setdefault("help_option_names", HELP)
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _take_short_help(each)


@click.command(cls=Commands, context_settings={"help_option_names": HELP, "max_content_width": 100})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """BillingWatch: self-hosted anomaly detection for Stripe billing.

    \b
    billingwatch demo                see it work, in three minutes, with nothing configured
    billingwatch up                  run it, with servers of its own
    billingwatch check               is everything configured and reachable?

    Settings come from the environment (DATABASE_URL, REDIS_URL, STRIPE_WEBHOOK_SECRET, ...), rules and channels
    from billingwatch.toml. Exit codes: 0 done, 1 the thing asked about failed, 2 wrong usage or configuration.
    """
