"""Compiled building blocks: the controller step, elementary functions, random numbers, loops.

Importing this package imports numba; import it where it is used.
"""
