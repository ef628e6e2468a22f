"""Weights and activations in fewer bits: observe, smooth, round, and rewrite the graph."""
