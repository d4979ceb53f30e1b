"""How many examples a device's memory holds: asked of the compiled program, and of the device."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import jax
import numpy as np

from rvis.engine import programs
from rvis.engine.policy import Policy
from rvis.engine.slots import Group, Work
from rvis.kernels.threads import num_workers

_SHARE = 0.8
"""Of the free memory that a program may take."""


def free() -> int | None:
    """Bytes that a device has left; None where it does not tell, as a CPU."""
    numbers = jax.local_devices()[0].memory_stats()
    return numbers["bytes_limit"] - numbers["bytes_in_use"] if numbers else None


def needed(work: Work) -> tuple[float, float]:
    """Bytes that the program takes on one device: in any case, and for each example."""
    group = Group(work)
    group.fill(deque([0]), 1, {})
    lowered = programs.advance.lower(*group.arguments(1), **group.options())
    numbers: Any = lowered.compile().memory_analysis()
    shared = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(work.shared))
    held = numbers.argument_size_in_bytes + numbers.output_size_in_bytes
    held -= numbers.alias_size_in_bytes + shared
    # A device computes one program at a time, and holds the state of each.
    total = num_workers() * held + numbers.temp_size_in_bytes
    return shared, max(1, total) / (work.policy.width * work.policy.rows)


def fitted(work: Work) -> Work:
    """`work` in a program as wide as the device's memory holds, and as there are examples."""
    room = free()
    if room is None:
        return work
    shared, each = needed(work)
    layout = work.policy
    share = -(-work.count // layout.devices)
    most = (_SHARE * room - shared) / (each * layout.rows)
    width = 1
    while 2 * width <= most and width < share:
        width *= 2
    several = min(num_workers(), -(-share // (width * layout.rows)))
    return dataclasses.replace(work, policy=layout._replace(width=width, programs=several))


def narrower(layout: Policy) -> Policy | None:
    """The layout with half as many examples at once; None where there is but one."""
    if layout.rows > 1:
        return layout._replace(rows=-(-layout.rows // 2))
    return layout._replace(width=layout.width // 2) if layout.width > 1 else None


def exhausted(error: Exception) -> bool:
    """Whether an error says that a device's memory was full."""
    words = ("RESOURCE_EXHAUSTED", "Out of memory")
    return isinstance(error, jax.errors.JaxRuntimeError) and any(w in str(error) for w in words)
