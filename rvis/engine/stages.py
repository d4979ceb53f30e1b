"""Work in stages, each of which takes what the last one gave."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rvis import files
from rvis.engine import checkpoints

Carry = tuple[Any, ...]
"""Arrays that one stage hands to the next."""
Stage = Callable[[Carry, Path | None], Carry]
"""`stage(carry, checkpoint)` gives the next carry; a run may leave its state in the folder."""


def in_stages(
    stages: Iterable[Stage], carry: Carry, *, about: Any, checkpoint: files.PathLike | None = None
) -> Carry:
    """What the last stage gives.

    Args:
      stages: in their order.
      carry: what the first one takes.
      about: all that the result depends on.
      checkpoint: a folder in which the last stage that has ended leaves what it gave, and the one
        under way its state. It is removed in the end.

    Raises:
      ValueError: naming `checkpoint`, if the folder holds other work.

    Example:
      >>> from rvis import engine
      >>> engine.in_stages([lambda x, _: (x[0] + 1,), lambda x, _: (2 * x[0],)], (1,), about="")
      (4,)
    """
    stages = list(stages)
    if checkpoint is None:
        for stage in stages:
            carry = stage(carry, None)
        return carry
    folder = files.as_path("checkpoint", checkpoint)
    with files.alone(folder):
        digest = checkpoints.fingerprint(about, len(stages))
        ended = [folder / f"stage{number}.npz" for number in range(len(stages))]
        last = max((i for i, file in enumerate(ended) if file.exists()), default=-1)
        if last >= 0:
            carry = checkpoints.load(ended[last], None, fingerprint=digest)
        for number in range(last + 1, len(stages)):
            carry = stages[number](carry, folder / f"stage{number}")
            checkpoints.save(ended[number], carry, fingerprint=digest)
            if number:
                ended[number - 1].unlink(missing_ok=True)
        for file in ended:
            file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
    return carry
