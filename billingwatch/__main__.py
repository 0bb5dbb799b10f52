"""`python -m billingwatch` is the `billingwatch` command."""

from billingwatch.cli import main

main()
