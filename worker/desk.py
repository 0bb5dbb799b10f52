"""What a worker goes by when it tells people: channels, policy, the accounts' zones, where links lead."""

from datetime import tzinfo
from typing import Self
from zoneinfo import ZoneInfo

from msgspec import Struct

from billingwatch.model import Channel, Tenant
from detectors.registry import Plans
from notify.policy import Policy
from notify.route import CONSOLE
from notify.send import CONSOLE as CONSOLE_URL
from notify.template import SHIPPED, Templates
from worker.process import Process


class Desk(Struct, frozen=True):
    """`base_url` is the console's public address; "" where it has none, and messages offer no links then."""

    channels: dict[str, Channel]
    policy: Policy
    plans: Plans
    base_url: str = ""
    templates: Templates = SHIPPED

    @classmethod
    def of(cls, process: Process) -> Self:
        """What the process goes by."""
        return cls(process.rules.channels, process.policy, process.plans, process.base_url, process.templates)

    def channel(self, name: str) -> Channel | None:
        """The channel, None where it is not configured any more; with none configured the console is one."""
        return self.channels.get(name) or (Channel(CONSOLE_URL) if name == CONSOLE else None)

    def zone(self, tenant: Tenant) -> tzinfo:
        """The account's time zone."""
        return ZoneInfo(self.plans.of(tenant.account, tenant.livemode).calendar.zone)
