"""Other processes: one that is spawned works, one that is forked after JAX ran is refused."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, rvis
from rvis import attacks, objectives
grey = np.full((1, 28, 28, 1), 0.5, np.float32)
if {before}:
    model = rvis.load("mnist_cnn", weights="random")
child = os.fork()
if child == 0:
    for call in {calls}:
        try:
            if not {before}:
                model = rvis.load("mnist_cnn", weights="random")
            print(eval(call) is not None, flush=True)
        except RuntimeError as error:
            print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""

CALLS = {
    "model": "model(grey)",
    "load": "rvis.load('mnist_cnn', weights='random')",
    "record": "rvis.record(model, grey, 'conv1')",
    "visualize": "rvis.visualize(model, 3, steps=1, progress=False)",
    "pgd": "attacks.pgd(model, grey, 0, eps=0.1, steps=1, progress=False)",
}


def printed(before, *calls):
    """A line of each call in a forked process."""
    code = PROGRAM.format(before=before, calls=[CALLS[call] for call in calls])
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    return run.stdout.splitlines()


def test_a_fork_after_jax_ran_is_refused():
    messages = printed(True, *CALLS)
    assert len(messages) == len(CALLS)
    for call, message in zip(CALLS, messages, strict=True):
        assert "was forked from" in message and "'spawn'" in message, call


def test_a_fork_before_works():
    assert printed(False, "model") == ["True"]
