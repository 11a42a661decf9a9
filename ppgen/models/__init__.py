"""One file a family, each readable beside the textbook page."""

from ..program import Program
from .diffusion import Diffusion
from .flow import Flow
from .gan import GAN
from .glow import Glow
from .hierarchical import HierarchicalVAE
from .mixture import GaussianMixture
from .translation import Pix2Pix
from .vae import VAE
from .vector_flow import IAF, MAF, NeuralSpline, RealNVP

# Name -> class of every model that the commands know by its short name.
MODELS: dict[str, type[Program]] = {
    "GaussianMixture": GaussianMixture,
    "VAE": VAE,
    "HierarchicalVAE": HierarchicalVAE,
    "Diffusion": Diffusion,
    "RealNVP": RealNVP,
    "Glow": Glow,
    "MAF": MAF,
    "IAF": IAF,
    "NeuralSpline": NeuralSpline,
    "GAN": GAN,
    "Pix2Pix": Pix2Pix,
}

__all__ = [
    "GAN",
    "IAF",
    "MAF",
    "MODELS",
    "VAE",
    "Diffusion",
    "Flow",
    "GaussianMixture",
    "Glow",
    "HierarchicalVAE",
    "NeuralSpline",
    "Pix2Pix",
    "RealNVP",
]
