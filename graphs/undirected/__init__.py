"""Markov random fields: cliques, factorisation, energies, separation, Markov properties."""
