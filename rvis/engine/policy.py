"""How many examples, steps and programs at once: the one place that looks at the devices."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rvis.kernels.threads import num_workers

_CACHE = 16384
"""Pixels that are held side by side on a core of a CPU: more leave its cache."""
_CALL = 2**21
"""Pixels that one call of a program sees at least, so that calling it costs next to nothing."""
_LONG = 2**22
"""Pixels that one call sees at most, on a CPU: seconds, so that Ctrl-C and the bar work."""
_SLOTS = 2**16
"""Pixels in the slots of one program on a CPU: megabytes."""
_MEMORY = 2**22
"""Pixels side by side on an accelerator."""


class Policy(NamedTuple):
    """How a run is laid out.

    Attributes:
      width: examples that a program computes side by side.
      rows: groups of so many that it computes one after another.
      programs: how many programs run at once, each on a core of a CPU; elsewhere one computes while
        the host reads what the steps of the other told.
      piece: steps of one call at most.
      mesh: devices that share a program's slots; None for one device.
    """

    width: int
    rows: int
    programs: int
    piece: int
    mesh: Mesh | None

    @property
    def devices(self) -> int:
        """How many devices share a program."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def slots(self) -> int:
        """Examples that one program holds."""
        return self.width * self.rows * self.devices

    @property
    def apart(self) -> bool:
        """Whether slots begin one after another, to the same bits.

        XLA:CPU compiles the random numbers of several keys at once three times as long.
        """
        return self.mesh is None and self.slots <= 256 and jax.default_backend() == "cpu"

    def order(self) -> np.ndarray:
        """The slots in the order in which they are filled: every device gets its share."""
        index = np.arange(self.slots).reshape(self.devices, self.rows, self.width)
        return index.swapaxes(0, 1).ravel()


def side_by_side(pixels: int, *, widest: int = 4) -> int:
    """How many examples are computed side by side; a function of their size alone.

    On a CPU a few small ones fit the cache; an accelerator takes what its memory holds for sure. So
    an example meets the same program, and to the bit the same result, alone and in any batch.

    Args:
      pixels: places of the images that one step of one example holds: those that the network
        sees, and as many again where an optimizer remembers some.
      widest: the most that pay on a CPU.

    Example:
      >>> from rvis.engine import policy
      >>> policy.side_by_side(224 * 224)
      1
    """
    if jax.default_backend() == "cpu":
        return max(1, min(widest, _CACHE // pixels))
    return max(1, min(512, _MEMORY // pixels))


def samples_for(pixels: int, samples: int) -> int:
    """How many of an example's samples one step of a mean takes: a power of two."""
    on_cpu = jax.default_backend() == "cpu"
    most = min(16, _CACHE // pixels) if on_cpu else min(256, _MEMORY // pixels)
    powers = [2**i for i in range(9) if 2**i <= max(1, most)]
    # A last block of which little counts would be computed in vain.
    return max(d for d in powers if -(-samples // d) * d <= 1.125 * samples)


def equal_blocks(pixels: int, count: int, *, widest: int = 16) -> int:
    """How many of `count` images one step takes, where blocks of equal size waste the least."""
    return -(-count // -(-count // side_by_side(pixels, widest=widest)))


def plan(
    pixels: int,
    count: int,
    steps: int,
    *,
    widest: int = 4,
    piece: int | None = None,
    stops: bool = False,
    chunk: int | None = None,
    together: bool = False,
) -> Policy:
    """The layout of a run.

    Args:
      pixels: see `side_by_side`.
      count: examples.
      steps: of each.
      widest: see `side_by_side`.
      piece: steps of one call at most; by default what keeps calls long.
      stops: whether examples may end early, and their slots be filled again.
      chunk: examples on each device at once, rounded up to the width.
      together: whether all examples must be in slots at once.
    """
    devices = jax.local_devices()
    on_cpu = jax.default_backend() == "cpu"
    width = side_by_side(pixels, widest=widest)
    share = -(-count // len(devices))
    if not on_cpu:
        width = min(width, chunk or width, 1 << (share - 1).bit_length())
    devices = devices[: -(-count // width)]
    mesh = Mesh(np.asarray(devices), ("examples",)) if len(devices) > 1 else None
    programs = min(num_workers(), -(-min(share, chunk or share) // width))
    # Rounded, so that most other numbers of steps share the programs.
    room = 1 << (steps - 1).bit_length()
    rows = 1
    if not stops:
        # Where slots are emptied one by one, gaps in many rows would be computed in vain.
        rows = min(_CALL // (pixels * width * min(room, 64)), _SLOTS // (pixels * width))
    at_once = width * programs * len(devices)
    if chunk is not None:
        rows = min(rows, -(-chunk // (width * programs)))
    if together:
        rows = -(-count // at_once)
    if piece is None:
        piece = max(1, steps // 8) if stops else 64
    if on_cpu:
        piece = min(piece, _LONG // (pixels * width))
    return Policy(width, max(1, rows), programs, max(1, min(piece, room)), mesh)


def at_once(pixels: int, count: int, chunk: int | None = None) -> int:
    """How many examples of a long run are in slots at once; arguments as `plan`."""
    layout = plan(pixels, max(1, count), 1 << 20, chunk=chunk)
    return layout.slots * layout.programs
