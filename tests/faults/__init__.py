"""Faults: what is kept, what is said, and how it goes on, whatever happens to a process."""
