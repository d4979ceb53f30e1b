"""Reads the image sets users already have: IDX files, CIFAR batches, image folders and zips."""

from rvis.data.dataset import Dataset
from rvis.data.loading import load
from rvis.data.pictures import Size, read_image
from rvis.data.preparation import Preparation

__all__ = ["Dataset", "Preparation", "Size", "load", "read_image"]
