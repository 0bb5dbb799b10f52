"""A made-up Stripe account that sends whole events: seeded, streamed, with labelled incidents.

Pure: no I/O, no clock, no global randomness. The same scenario gives the same bytes.
"""
