"""GABA's law, once: its settings, its stages, what its floor and its filter do to a reading."""
