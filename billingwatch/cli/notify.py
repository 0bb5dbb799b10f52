"""`billingwatch notify`: try the channels."""

import json
import sys

import click

from billingwatch.cli.start import begin, load_rules


@click.group()
def notify() -> None:
    """Try the channels that alerts go to."""
    begin()


@notify.command()
@click.argument("channel", required=False)
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def test(channel: str | None, as_json: bool) -> None:
    """Send a marked sample to every channel, or to one, and report what became of each."""
    from notify.message import Message
    from notify.send import CONSOLE, mask, send

    rules, _ = load_rules()
    channels = dict(rules.channels) or {"console": CONSOLE}
    if channel is not None and channel not in channels:
        raise click.UsageError(f"no channel is named {channel!r}; there are {', '.join(channels)}")
    message = Message(
        "TEST from BillingWatch",
        "This is a test of this channel. Nothing is wrong with your billing, and alerts will arrive here.",
    )
    results = []
    for name, url in channels.items():
        if channel in (None, name):
            delivery = send(url, message.title, message.body)
            results.append({"channel": name, "ok": delivery.ok, "url": mask(url), "error": delivery.error})
    if as_json:
        click.echo(json.dumps(results, indent=2))
    else:
        for result in results:
            click.echo(f"{result['channel']}: {'sent' if result['ok'] else 'FAILED: ' + str(result['error'])}")
    if not all(result["ok"] for result in results):
        sys.exit(1)
