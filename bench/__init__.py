"""Benchmarks against stated goals: `python -m bench`. They print figures and verdicts, and assert nothing."""
