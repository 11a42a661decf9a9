"""Every generative model of the textbooks as one Pyro program."""

from importlib import import_module
from typing import Any

# Loaded at first use, so that `ppgen --help` does not wait for PyTorch.
_HOMES = {
    "Program": "program",
    "Objective": "objective",
    "ELBO": "objective",
    "ImportanceWeightedELBO": "objective",
    "VAE": "models.vae",
    "HierarchicalVAE": "models.hierarchical",
    "Diffusion": "models.diffusion",
    "GaussianMixture": "models.mixture",
    "Flow": "models.flow",
    "RealNVP": "models.vector_flow",
    "MAF": "models.vector_flow",
    "IAF": "models.vector_flow",
    "NeuralSpline": "models.vector_flow",
    "Glow": "models.glow",
    "GAN": "models.gan",
    "Pix2Pix": "models.translation",
    "fit": "training",
    "load": "loading",
    "load_data": "data",
    "Dataset": "data",
    "evaluate": "evaluation",
    "Likelihood": "likelihood",
    "Score": "score_record",
    "Run": "run",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ppgen' has no attribute {name!r}; it has {sorted(_HOMES)}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOMES)
