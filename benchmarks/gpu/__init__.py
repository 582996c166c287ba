"""The parts of gpu_kit.py: the plan, what it keeps, and what is measured."""
