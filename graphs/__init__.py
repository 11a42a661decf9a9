"""Discrete graphical models on networkx graphs and pgmpy models."""

from importlib import import_module
from typing import Any

# Loaded at first use: pgmpy and PyTorch take seconds to import, and few calls need both.
_HOMES = {
    "load": "io",
    "read": "io",
    "save": "io",
    "networks": "io",
    "Tables": "tables",
    "tables_of": "tables",
    "factorization": "directed",
    "num_parameters": "directed",
    "joint": "directed",
    "log_probability": "directed",
    "sample": "directed",
    "d_separated": "trails",
    "explain_separation": "trails",
    "markov_blanket": "independence",
    "moralize": "independence",
    "local_independencies": "independence",
    "equivalent": "independence",
    "draw": "pictures.drawing",
    "JunctionTree": "exact.junction_tree",
    "Cost": "exact.clique_tree",
    "Posterior": "exact.posterior",
    "MostProbable": "exact.posterior",
    "elimination_order": "exact.triangulation",
    "eliminate": "exact.elimination",
    "likelihood_weighting": "monte_carlo",
    "gibbs": "monte_carlo",
    "cliques": "undirected.cliques",
    "maximal_cliques": "undirected.cliques",
    "gibbs_factorization": "undirected.factorization",
    "to_markov": "undirected.factorization",
    "energies": "undirected.energies",
    "boltzmann": "undirected.energies",
    "energy": "undirected.energies",
    "partition_function": "undirected.energies",
    "separated": "undirected.separation",
    "markov_properties": "undirected.markov_properties",
    "FactorGraph": "factor_graph",
    "belief_propagation": "messages.beliefs",
    "mean_field": "messages.variational",
    "tree_reweighted": "messages.reweighted",
    "Beliefs": "messages.beliefs",
    "denoise": "ising",
    "fit_ising": "ising",
    "MarkovChain": "sequences.markov_chain",
    "HMM": "sequences.hmm",
    "Categorical": "sequences.emissions",
    "Gaussian": "sequences.emissions",
    "learn_parameters": "learning.learn",
    "learn_structure": "learning.structure",
    "compare_structures": "learning.comparison",
    "cpdag": "learning.comparison",
    "learn_log_linear": "learning.log_linear",
    "iterative_proportional_fitting": "learning.proportional_fitting",
    "to_pyro": "bridge",
    "from_pyro": "bridge",
    "to_bayesian_network": "bridge",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'graphs' has no attribute {name!r}; it has {sorted(_HOMES)}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOMES)
