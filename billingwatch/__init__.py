"""BillingWatch: self-hosted anomaly detection for Stripe billing."""

__version__ = "0.1.0"
