"""Losses: several task losses into one, each method in a file of its own."""
