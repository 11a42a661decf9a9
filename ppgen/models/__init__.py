"""One file a family, each readable beside the textbook page."""

from ..program import Program
from .diffusion import Diffusion
from .hierarchical import HierarchicalVAE
from .vae import VAE

# Name -> class of every model that the commands know by its short name.
MODELS: dict[str, type[Program]] = {
    "VAE": VAE,
    "HierarchicalVAE": HierarchicalVAE,
    "Diffusion": Diffusion,
}

__all__ = ["MODELS", "VAE", "Diffusion", "HierarchicalVAE"]
