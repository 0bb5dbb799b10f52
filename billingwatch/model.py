"""The words that everyone shares, as frozen structs. Imports nothing of ours, knows no I/O and no clock."""

from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from msgspec import Struct, to_builtins

# Stripe's list, https://docs.stripe.com/currencies; amounts of every other currency have two decimals.
ZERO_DECIMAL = frozenset("bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf".split())
THREE_DECIMAL = frozenset("bhd jod kwd omr tnd".split())

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")


DUE_CLAIM = "due:"  # how the claims of what lies ahead begin: they are kept until it is over


class Tenant(Struct, frozen=True, order=True):
    """Whose events these are: every key in the store starts with it.

    `account` is the connected account's id (`acct_…`) or the configured source's name.
    Live and test mode are never mixed.
    """

    account: str
    livemode: bool


class Money(Struct, frozen=True, order=True):
    """An amount in minor units (cents for usd, yen for jpy, fils for kwd) with its currency, lower case."""

    amount: int
    currency: str

    def __str__(self) -> str:
        """`"1,823.00 USD"`, `"5,000 JPY"`, `"1.250 KWD"`: exact, never through a float."""
        digits = decimals(self.currency)
        sign = "-" if self.amount < 0 else ""
        whole, part = divmod(abs(self.amount), 10**digits)
        fraction = f".{part:0{digits}d}" if digits else ""
        return f"{sign}{whole:,}{fraction} {self.currency.upper()}"


def decimals(currency: str) -> int:
    """How many decimals an amount of this currency has: 0, 2 or 3."""
    if currency in ZERO_DECIMAL:
        return 0
    return 3 if currency in THREE_DECIMAL else 2


class Fact(Struct, frozen=True):
    """One countable thing that an event tells: what a metric's bucket grows by.

    `claim` names the business object, so that the several events Stripe sends about one thing
    (payment_intent.*, charge.*, invoice.*) count once; "" where the event itself is the thing.
    `undoes` is the claim that this fact takes back: it counts only where that was told before.
    `attempt_of` is the payment intent or invoice that a payment attempt belongs to: its first
    attempt keeps the stratum, later ones get the stratum "retry".
    From `brand` on: what rules may ask for and what explains an excess; "" where the event does not say.
    """

    metric: str
    created: int  # epoch seconds, Stripe's
    claim: str = ""
    stratum: str = ""
    currency: str = ""
    amount: int = 0  # minor units
    attempt_of: str = ""
    count: int = 1
    undoes: str = ""
    received: int = 0  # epoch seconds; of the pulse only
    payer: str = ""  # the customer, else "card:" and the card's fingerprint
    invoiced: bool = False  # an invoice asked for this payment
    brand: str = ""
    country: str = ""  # the card's
    funding: str = ""
    method: str = ""  # the payment method's type
    price: str = ""  # the price's id
    decline: str = ""  # the decline code, else the failure's


class Paid(NamedTuple):
    """A successful payment as it is remembered of its payer: when, of which attempt, and whether an invoice asked."""

    created: int  # epoch seconds
    attempt: str
    invoiced: bool


class Refunded(Struct, frozen=True):
    """What an event tells about the refunds of one charge.

    Stripe tells it twice: `refund.*` carries each refund's own amount, `charge.refunded` the cumulated total.
    The refunded amount of a charge is the larger of what its refunds add up to and what the charge says, so
    either feed, or both in any order, counts each refund once.
    """

    charge: str
    created: int  # epoch seconds
    currency: str
    refund: str = ""  # the refund's id, "" when the charge speaks
    amount: int = 0  # minor units: the refund's own amount, or the charge's cumulated one
    brand: str = ""  # the card's, where the charge speaks
    country: str = ""


class RefundBook(Struct, frozen=True):
    """What is known of one charge's refunds, from both of Stripe's tellings, and what of it was counted."""

    currency: str
    refunds: int = 0  # refund objects seen
    refund_amount: int = 0  # their sum, minor units
    totals: int = 0  # different totals that the charge told
    total_amount: int = 0  # the largest total told
    counted: int = 0
    counted_amount: int = 0


class Bucket(Struct, frozen=True):
    """What was counted of one metric, stratum and currency in one bucket of event time: a row of the rollups."""

    metric: str
    stratum: str
    currency: str
    grain: int  # minutes: 5 or 60
    start: int  # epoch seconds
    count: int
    amount: int  # minor units


State = Literal["open", "acked", "resolved"]


class Incident(Struct, frozen=True, kw_only=True):
    """A span of breached verdicts of one detector on one scope."""

    tenant: Tenant
    detector: str
    metric: str
    scope: str = ""  # the dimension value the detector speaks about; "" for the whole account
    state: State = "open"
    severity: Severity
    opened_at: datetime
    first_breach_at: datetime
    last_breach_at: datetime
    clear_since: datetime | None = None  # recovering since
    resolved_at: datetime | None = None
    observed: float
    expected: float
    limit: float
    peak: float
    told: float = 0.0  # the observed value that people were last told
    window: int  # seconds
    why: str
    at_risk: tuple[Money, ...] = ()
    customers: int = 0
    number: int = 0  # of its account's incidents
    evidence: dict[str, Any] = {}  # what was compared, by signal, and what contributed most; JSON
    id: int = 0  # the store's; 0 before it is stored


Reason = Literal["first", "worse", "repeat", "escalate", "resolved", "test", "digest"]


class Alert(Struct, frozen=True, kw_only=True):
    """One thing to be told about one incident to one channel: a row of the outbox."""

    id: int
    incident: int | None  # None where it is about no incident: a test, a digest
    channel: str
    reason: Reason
    route: str = ""  # why this channel
    staged_at: datetime
    next_try: datetime
    first_try: datetime | None = None
    attempts: int = 0
    cause: int | None = None  # the incident that explains this one, while that holds it back
    content: dict[str, Any] | None = None  # what is told where it is about no incident


Format = Literal["billingwatch", "alertmanager", "keep"]


class Channel(Struct, frozen=True):
    """Where messages go: an Apprise URL, or an http(s):// address that is sent signed JSON."""

    url: str
    secret: str = ""  # that signs what a webhook is sent, whsec_…
    format: Format = "billingwatch"  # of a webhook's JSON
    allow_private: bool = False  # whether a webhook may be in a private network
    budget: int | None = None  # messages an hour; None: as for all


class Silence(Struct, frozen=True, kw_only=True):
    """While it holds, what it matches is not told. `recurs` narrows it to parts of the week, in the account's zone."""

    id: int = 0
    matchers: dict[str, str]  # label (account, livemode, detector, scope, severity, incident) -> what it must be
    starts_at: datetime
    ends_at: datetime | None = None  # None: until somebody ends it
    recurs: str = ""  # as `notify.interval` reads it
    why: str
    who: str


Feedback = Literal["confirmed", "expected", "false_alarm", "new_normal"]

OWN = Tenant("billingwatch", True)  # whose incidents are about BillingWatch itself
# How the names of accounts begin that are made up to try the way of an alert. No source's name has an underscore, and
# Stripe's accounts begin with acct_.
DRILL = "drill_"


def utc(seconds: float) -> datetime:
    """Epoch seconds as an aware UTC datetime."""
    return datetime.fromtimestamp(seconds, UTC)


def iso(moment: datetime | None) -> str | None:
    """As JSON shows it, `"2026-03-10T12:00:00Z"`."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def described(incident: Incident) -> dict[str, Any]:
    """The incident as JSON shows it: the shape of the backtest's incidents, with its id, state and evidence."""
    return {
        "id": incident.id,
        "state": incident.state,
        "detector": incident.detector,
        "metric": incident.metric,
        "account": incident.tenant.account,
        "livemode": incident.tenant.livemode,
        "scope": incident.scope,
        "severity": incident.severity,
        "opened_at": iso(incident.opened_at),
        "first_breach_at": iso(incident.first_breach_at),
        "last_breach_at": iso(incident.last_breach_at),
        "resolved_at": iso(incident.resolved_at),
        "observed": incident.observed,
        "expected": incident.expected,
        "limit": incident.limit,
        "peak": incident.peak,
        "window": incident.window,
        "money_at_risk": to_builtins(incident.at_risk),
        "customers": incident.customers,
        "why": incident.why,
        "evidence": incident.evidence,
    }
