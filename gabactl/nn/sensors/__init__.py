"""Sensors: how large a task's gradient on the shared parameters is, when to look, at what cost."""
