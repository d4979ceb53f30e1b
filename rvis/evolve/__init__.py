"""Pictures bred, without any gradient, until a network is sure of them: one elite a class."""

from rvis.evolve.cppn import CPPN, Graph
from rvis.evolve.direct import Direct
from rvis.evolve.elites import Evolution, map_elites, roughness

__all__ = ["CPPN", "Direct", "Evolution", "Graph", "map_elites", "roughness"]
