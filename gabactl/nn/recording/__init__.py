"""Recordings of a training run: written step by step, and shown in TensorBoard while they grow."""
