"""Processes that share a folder, as threads with numbers of their own."""

from __future__ import annotations

import threading

import jax

from rvis.engine import processes


def test_one_that_begins_last_finds_what_the_first_made(tmp_path, monkeypatch):
    folder, own, made = tmp_path / "processes", threading.local(), threading.Event()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: own.number)
    monkeypatch.setattr(processes, "SILENT", 3.0)
    page = folder / "page"

    def first():
        own.number = 0
        with processes.together(folder):
            folder.mkdir(parents=True, exist_ok=True)
            page.touch()
            made.set()

    thread = threading.Thread(target=first)
    thread.start()
    made.wait()
    thread.join(0.5)  # time enough to tidy up too early
    own.number = 1
    with processes.together(folder) as wait:
        wait(page.exists, "the page was made")
    thread.join(10)
    assert not thread.is_alive() and not folder.exists()
