"""Weights and activations in fewer bits: what is observed, smoothed, rounded and written in a graph."""
