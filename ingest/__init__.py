"""The receiver: verify, group-commit, enqueue, answer. No database, no parsing."""
