"""Weights: state dicts of other libraries, downloads, and what they become."""
