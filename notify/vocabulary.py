"""What people call what detectors and metrics are about, and what to do first. Words only."""

# What happened, by detector; where it is not listed, the metric speaks.
DETECTORS = {
    "failure_rate": "payments failing",
    "card_testing": "card testing",
    "refund_spike": "refund spike",
    "churn_spike": "cancellation spike",
    "dispute_spike": "dispute spike",
    "volume_drop": "fewer payments than usual",
    "duplicate_charges": "duplicate charges",
    "webhook_silence": "no webhooks from Stripe",
    "webhook_lag": "webhooks arriving late",
    "revenue_drop": "revenue drop",
    "mrr_drop": "MRR drop",
}
# What somebody who was woken may begin with.
TODO = {
    "failure_rate": "undo what was changed just before; see status.stripe.com; look what those that fail share.",
    "card_testing": "put a CAPTCHA or a limit before the checkout, block the cards in Radar, refund what went through.",
    "duplicate_charges": "stop the job or release that charges, then refund the second payment of each.",
    "refund_spike": "find the person or API key that refunds, and stop it.",
    "churn_spike": "read the reasons of the newest cancellations: a bug, a mail, a price, a script?",
    "dispute_spike": "look what the disputed payments share; answer each before it is due.",
    "volume_drop": "try to buy something yourself; undo the last deploy.",
    "revenue_drop": "try to buy something yourself; look for a changed price or coupon.",
    "mrr_drop": "look for one script, price or person behind the changed subscriptions.",
    "webhook_silence": "see in Stripe whether the endpoint is enabled and what it answered; try it from outside.",
    "webhook_lag": "see in Stripe how your endpoint answers: what is slow there comes late here.",
}

# Of BillingWatch itself; {} is the scope.
OURS = {
    "pipeline_lag": "BillingWatch is behind",
    "worker_missing": "no worker of {} runs",
    "channel_broken": "channel {} is broken",
    "quarantine_growing": "events are held in quarantine",
    "disk_high": "the disk is nearly full",
    "redis_high": "Redis is nearly full",
    "redis_away": "Redis does not answer",
    "alerts_overdue": "alerts are not sent",
    "redis_evicting": "Redis has thrown jobs away",
}

# Prefix of a metric -> (what there are too many of, the list in Stripe's dashboard). The first that fits wins.
METRICS = (
    ("payment.failed", "failed payments", "payments?status%5B0%5D=failed"),
    ("fail", "failed payments", "payments?status%5B0%5D=failed"),
    ("small_fail", "small failed payments", "payments?status%5B0%5D=failed"),
    ("refund", "refunds", "payments?status%5B0%5D=refunded"),
    ("dispute", "disputes", "disputes"),
    ("early_fraud_warning", "early fraud warnings", "radar"),
    ("cancel", "cancellations", "subscriptions?status=canceled"),
    ("subscription.cancel", "cancellations", "subscriptions?status=canceled"),
    ("subscription", "subscriptions", "subscriptions"),
    ("trial", "trials", "subscriptions"),
    ("mrr", "MRR", "subscriptions"),
    ("invoice", "invoices", "invoices"),
    ("payout", "payouts", "payouts"),
    ("revenue", "revenue", "payments"),
    ("payment", "payments", "payments"),
    ("charge", "charges", "payments"),
    ("attempt", "payment attempts", "payments"),
    ("success", "successful payments", "payments"),
    ("dup", "duplicate charges", "payments"),
    ("checkout", "checkouts", "payments"),
    ("webhook", "webhooks", "webhooks"),
    ("late", "late webhooks", "webhooks"),
    ("event", "events", "events"),
    ("any", "events", "events"),
)
