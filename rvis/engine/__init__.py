"""The one engine that runs every algorithm: a queue of examples, and slots that hold some."""

from rvis.engine.algorithm import Algorithm, Finished, Run
from rvis.engine.policy import at_once
from rvis.engine.programs import traced
from rvis.engine.queue import apply, counted, no_number, run, stream
from rvis.engine.stages import Carry, in_stages

__all__ = [
    "Algorithm",
    "Carry",
    "Finished",
    "Run",
    "apply",
    "at_once",
    "counted",
    "in_stages",
    "no_number",
    "run",
    "stream",
    "traced",
]
