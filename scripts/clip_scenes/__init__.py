"""The drawn scenes of the small CLIP, and its training."""
