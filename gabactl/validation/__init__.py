"""Whether a recording does as theory says: replay check, prediction, forecast."""
