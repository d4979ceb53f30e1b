"""Wrong values for every argument of every public function, and how each is refused."""

from scripts.fuzz.calls import (
    LEFT,
    attempts,
    elsewhere,
    functions,
    is_fair,
    parameters,
    right,
    tried,
)
from scripts.fuzz.values import FAIR, OTHERWISE, WRONG, kind

__all__ = [
    "FAIR",
    "LEFT",
    "OTHERWISE",
    "WRONG",
    "attempts",
    "elsewhere",
    "functions",
    "is_fair",
    "kind",
    "parameters",
    "right",
    "tried",
]
