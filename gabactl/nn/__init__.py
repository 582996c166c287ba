"""PyTorch side: losses, sensors, recorder, models and training. Needs the extra ``torch``."""
