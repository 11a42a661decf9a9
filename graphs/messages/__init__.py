"""Belief propagation, mean field and tree-reweighted bounds on factor graphs."""
