"""Exact inference: junction trees compiled once for a structure, and elimination to look at."""
