"""Sweeps across kills, devices and processes, and the folder that they leave."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import PIL.Image
import pytest

import rvis
from rvis.engine import processes
from rvis.plotting import reports
from rvis.visualization import sweeps
from tests import toys

ROOT = pathlib.Path(__file__).parents[2]
MODEL = toys.pointwise(width=12)
QUICK = {"steps": 6, "progress": False}

CHILD = """
import sys, jax
{before}
from tests import toys
import rvis
result = rvis.sweep(toys.pointwise(width=12), "relu", out=sys.argv[1], steps=6, progress=False)
print(jax.device_count(), jax.process_count(), result.images.shape)
"""


def start(folder, *, before="", flags=""):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(before=before), str(folder)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}",
            "JAX_PLATFORMS": "cpu",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child):
    out, error = child.communicate(timeout=240)
    assert child.returncode == 0, error
    return out


@pytest.fixture(scope="module")
def whole():
    return rvis.sweep(MODEL, "relu", **QUICK)


@pytest.mark.slow
def test_eight_devices_give_the_same_pictures(tmp_path, whole):
    said = finish(start(tmp_path, flags="--xla_force_host_platform_device_count=8"))
    assert said.split()[0] == "8"
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), whole.images)


# The unit's file is written, but has not yet its name.
DIES = """
import os, signal
rename, renamed = os.replace, []
def replace(source, target):
    renamed.extend([target] * (target.parent.name == "units" and target.suffix == ".npz"))
    if len(renamed) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = replace
"""


def pair(folder, *before):
    """Two processes of four devices each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    join = "jax.distributed.initialize('127.0.0.1:{}', num_processes=2, process_id={})\n"
    flags = "--xla_force_host_platform_device_count=4"
    return [
        start(folder, before=join.format(port, i) + before[i % len(before)], flags=flags)
        for i in range(2)
    ]


def test_two_processes_give_the_same_pictures(tmp_path, whole):
    for child in pair(tmp_path, ""):
        assert finish(child).splitlines()[-1].split()[:2] == ["8", "2"]
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), whole.images)


def test_the_page_of_a_killed_run_is_not_this_runs(tmp_path, monkeypatch):
    rvis.sweep(MODEL, "relu", range(4), out=tmp_path, **QUICK)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "_BEAT", 0.1)
    monkeypatch.setattr(processes, "SILENT", 0.5)
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    with monkeypatch.context() as killed:  # before it could tidy up
        killed.setattr(shutil, "rmtree", lambda *some, **more: None)
        rvis.sweep(MODEL, "relu", range(4), out=tmp_path, **QUICK)
    assert (tmp_path / "processes").exists()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(RuntimeError, match="process 0 of 2 has ended before the page was made"):
        rvis.sweep(MODEL, "relu", range(4), out=tmp_path, **QUICK)


# JAX itself waits for the dead for a hundred seconds before it ends.
NOTICES = """
import os
from rvis.engine import processes
processes.SILENT = 3
sys.excepthook = lambda kind, error, trace: (print(error, flush=True), os._exit(3))
"""


def test_one_goes_on_where_another_was_killed(tmp_path, whole):
    first, second = pair(tmp_path, NOTICES, DIES.format(at=3))
    told, _ = first.communicate(timeout=240)
    assert "out: process 1 of 2 has ended before its units were drawn" in told
    assert first.returncode == 3 and second.wait() == -signal.SIGKILL
    assert not (tmp_path / "index.html").exists()
    finish(start(tmp_path))
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), whole.images)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["images.npy", "index.html", "spritemap.png", "sweep.json", "units"]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_same_bits(tmp_path, whole):
    child = start(tmp_path, before=DIES.format(at=5))
    child.communicate(timeout=240)
    assert child.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "units").glob("unit*.npz"))) == 4
    resumed = rvis.sweep(MODEL, "relu", out=tmp_path, **QUICK)
    np.testing.assert_array_equal(resumed.images, whole.images)
    np.testing.assert_array_equal(resumed.scores, whole.scores)


def test_files_are_written_while_the_next_units_are_drawn(tmp_path, whole, monkeypatch):
    told, draw, save = [], sweeps.visualize, sweeps._Store.save

    def drawn(*arguments, **options):
        told.append("drawing")
        return draw(*arguments, **options)

    def saved(store, number, *rest):
        time.sleep(0.05)
        save(store, number, *rest)
        told.append(number)

    monkeypatch.setattr(sweeps, "visualize", drawn)
    monkeypatch.setattr(sweeps._Store, "save", saved)
    found = rvis.sweep(MODEL, "relu", out=tmp_path, chunk=1, **QUICK)
    np.testing.assert_array_equal(found.images, whole.images)
    assert [number for number in told if number != "drawing"] == list(range(12))
    second = told.index("drawing", 1)
    assert told[second + 1] < 3


def test_the_folder_of_a_finished_sweep(tmp_path):
    result = rvis.sweep(MODEL, "relu", [3, 1], out=tmp_path, **QUICK)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["images.npy", "index.html", "spritemap.png", "sweep.json", "units"]
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), result.images)
    assert isinstance(result.images, np.memmap)
    page = (tmp_path / "index.html").read_text()
    assert page.index("units/unit00003.png") < page.index("units/unit00001.png")
    assert json.loads((tmp_path / "sweep.json").read_text())["steps"] == 6
    with PIL.Image.open(tmp_path / "units" / "unit00003.png") as picture:
        expected = np.floor(255 * result.images[0] + 0.5)
        np.testing.assert_array_equal(np.asarray(picture), expected)


def test_facets_and_neurons_have_sheets_too(tmp_path):
    result = rvis.sweep(MODEL, "relu", [0, 1], kind="neuron", facets=3, out=tmp_path, **QUICK)
    assert result.images.shape == (2, 3, *MODEL.input_shape)
    direct = rvis.visualize(MODEL, rvis.objectives.neuron("relu", [0, 1]), facets=3, **QUICK)
    np.testing.assert_array_equal(result.images, direct.images)
    assert result.show().size[0] > 0


def test_real_examples_stand_beside_the_pictures(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, *MODEL.input_shape), np.uint8)
    real = rvis.data.Dataset(images, np.zeros(20, np.int32), ("noise",), "noise")
    result = rvis.sweep(MODEL, "conv", [2, 5], out=tmp_path, real=real, **QUICK)
    page = (tmp_path / "index.html").read_text()
    assert "units/unit00005_real.png" in page and "rank among units" in page
    activations = rvis.record(MODEL, real.floats(np.arange(20)), "conv")["conv"]
    first = np.asarray(activations)[..., 5].max((1, 2)).argmax()
    best = np.unravel_index(np.asarray(activations)[first, ..., 5].argmax(), (6, 8))
    with PIL.Image.open(tmp_path / "units" / "unit00005_real.png") as sheet:
        assert sheet.size == (3, 3)
        assert sheet.getpixel((0, 0)) == tuple(images[first][best])
    found = rvis.faithfulness(MODEL, rvis.objectives.channel("conv", [2, 5]), result.images, real)
    assert f"{found.percentile[0]:.1f} %" in page


def test_real_examples_need_a_folder():
    with pytest.raises(TypeError, match=r"real: rvis.data.dataset.Dataset"):
        rvis.sweep(MODEL, "conv", real=np.zeros((1, 6, 8, 3)))


def test_each_unit_may_have_a_start_of_its_own(tmp_path):
    starts = np.random.default_rng(0).uniform(0.2, 0.8, (12, *MODEL.input_shape)).astype(np.float32)
    direct = rvis.sweep(MODEL, "conv", start=starts, **QUICK)
    stored = rvis.sweep(MODEL, "conv", start=starts, out=tmp_path, **QUICK)
    np.testing.assert_array_equal(stored.images, direct.images)
    with pytest.raises(ValueError, match="start: one, or one for each of 12 units"):
        rvis.sweep(MODEL, "conv", start=starts[:4], out=tmp_path / "other", **QUICK)


def test_dead_units_are_marked(tmp_path):
    closed = toys.pointwise(bias=-100.0)
    result = rvis.sweep(closed, "relu", [0, 1], out=tmp_path, **QUICK)
    assert result.dead.all()
    assert (tmp_path / "index.html").read_text().count('class="tile dead"') == 2


def test_the_page_escapes_what_it_shows(tmp_path):
    entry = reports.Entry('<b>&"</script>', "a.png", np.arange(3.0), figures={"<i>": "</script>"})
    path = reports.layer_page(tmp_path / "p.html", [entry], title="<x>", about={"k": "<y>"})
    page = path.read_text()
    assert "<b>" not in page and "<x>" not in page and "<y>" not in page
    assert page.count("</script>") == 2


def test_the_page_works_in_a_browser(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    rvis.sweep(MODEL, "relu", out=tmp_path, **QUICK)
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run"
    flags += " --virtual-time-budget=2000"
    page = (tmp_path / "index.html").as_uri()
    shown = subprocess.run(
        [browser, *flags.split(), f"--user-data-dir={tmp_path}/profile", "--dump-dom", page],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    detail = shown[shown.index("<aside") : shown.index("</aside>")]
    assert "<h2>relu:0</h2>" in detail and 'src="units/unit00000.png"' in detail
    assert "<polyline" in detail and "6 steps" in detail
    assert shown.count('aria-pressed="true"') == 1 + shown.count('[aria-pressed="true"]')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("p.txt", [reports.Entry("a", "a.png", np.zeros(1))]), r"path: a name ending in \.html"),
        (("p.html", []), "entries: at least one"),
    ],
)
def test_pages_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        reports.layer_page(tmp_path / arguments[0], arguments[1], title="", about={})


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind: unknown 'chanel'; did you mean 'channel'"):
        rvis.sweep(MODEL, "relu", kind="chanel")
