"""Training, standard and adversarial, and what is measured of the trained network."""

from rvis.training.evaluation import evaluate
from rvis.training.loop import train
from rvis.training.recipe import Adversary, Recipe
from rvis.training.soup import model_soup

__all__ = ["Adversary", "Recipe", "evaluate", "model_soup", "train"]
