"""Runs of the engine that are interrupted, as by Ctrl-C."""

from __future__ import annotations

import contextlib

from rvis import engine


@contextlib.contextmanager
def interrupted(monkeypatch, number):
    """The engine's run of this number, from 1, is interrupted before it begins."""
    run, calls = engine.run, []

    def interrupting(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return run(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "run", interrupting)
        yield
