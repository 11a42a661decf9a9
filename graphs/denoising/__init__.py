"""Restoring images: the Ising energy, and the ways to make it small."""
