"""The one engine that runs every algorithm: a queue of examples, and slots that hold some."""

from rvis.engine.algorithm import Algorithm, Finished, Run
from rvis.engine.compilation import Compiled, compiled, keep_programs
from rvis.engine.policy import at_once
from rvis.engine.programs import traced
from rvis.engine.queue import apply, counted, no_number, run, stream
from rvis.engine.stages import Carry, in_stages

__all__ = [
    "Algorithm",
    "Carry",
    "Compiled",
    "Finished",
    "Run",
    "apply",
    "at_once",
    "compiled",
    "counted",
    "in_stages",
    "keep_programs",
    "no_number",
    "run",
    "stream",
    "traced",
]
