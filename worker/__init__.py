"""Everything that RQ runs, and the one clock."""
