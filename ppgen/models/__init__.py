"""One file a family, each readable beside the textbook page."""

from .vae import VAE

# Name -> class of every model that the commands know by its short name.
MODELS = {"VAE": VAE}

__all__ = ["MODELS", "VAE"]
