"""The balancers inside Lightning, Transformers and Accelerate, and in TensorBoard and W&B.

Each module imports its library when it is imported itself; nothing here does.
"""
