"""What a recording says: its replay, its saturation, its units, a run in progress."""
