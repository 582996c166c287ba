"""Hostile input: files that nobody wrote in good faith, made by the hundred thousand."""
