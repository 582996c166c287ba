"""Published values and an independent statement of the published algorithm, with their sources.

Source throughout: "Gradient-Aware Multi-Task Learning for Predictive Maintenance" (book), by
section; numbers computed by us instead are marked so.
"""
