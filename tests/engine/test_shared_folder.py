"""Processes that share a folder, as threads with numbers of their own."""

from __future__ import annotations

import threading

import jax
import pytest

from rvis.engine import processes


@pytest.fixture
def own(monkeypatch):
    """Where each thread keeps its number, of two."""
    local = threading.local()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: local.number)
    monkeypatch.setattr(processes, "SILENT", 3.0)
    return local


def meet_late(folder, own):
    """The second process begins when the first has made its page."""
    made = threading.Event()

    def first():
        own.number = 0
        with processes.together(folder) as others:
            others.tell("page")
            made.set()

    thread = threading.Thread(target=first)
    thread.start()
    made.wait()
    thread.join(0.5)  # time enough to tidy up too early
    own.number = 1
    with processes.together(folder) as others:
        others.wait(lambda: others.told(0, "page"), "the page was made")
    thread.join(10)
    assert not thread.is_alive() and not folder.exists()


def test_one_that_begins_last_finds_what_the_first_made(tmp_path, own):
    meet_late(tmp_path / "processes", own)


def test_one_that_left_an_earlier_run_has_not_left_this_one(tmp_path, own):
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "process1").write_text("left")
    meet_late(tmp_path / "processes", own)


def test_one_that_leaves_a_run_may_at_once_begin_the_next(tmp_path, own):
    folder = tmp_path / "processes"

    def run(number):
        own.number = number
        for page in ("first", "second"):
            with processes.together(folder) as others:
                if number == 0:
                    others.tell(page)
                others.wait(lambda page=page: others.told(0, page), "the page was made")

    # Daemons, for one that waits for ever would keep the tests from ending.
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
