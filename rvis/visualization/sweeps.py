"""Whole layers of pictures, streamed to disk, resumable, on every device and process there is."""

from __future__ import annotations

import itertools
import math
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import jax
import numpy as np
from numpy.lib import format as npy
from PIL import Image

from rvis import checks, engine, files, gate, objectives
from rvis.analysis import ranking
from rvis.analysis.faithful import faithfulness
from rvis.analysis.patches import top_activations, unit_numbers
from rvis.data import Dataset
from rvis.engine import checkpoints, processes
from rvis.objectives import Objective
from rvis.plotting import grids, reports
from rvis.results import Result
from rvis.types import LOGITS, Model, layer_shapes
from rvis.visualization.pictures import visualize
from rvis.visualization.plan import Options, make_plan

_KINDS: Mapping[str, Callable[[str, list[int]], Objective]] = {
    "channel": objectives.channel,
    "neuron": objectives.neuron,
}


@gate.public
def sweep(
    model: Model,
    layer: str,
    units: Iterable[int | str] | None = None,
    *,
    kind: str = "channel",
    out: str | Path | None = None,
    real: Dataset | None = None,
    **options: Unpack[Options],
) -> Result:
    """Pictures of a whole layer's units (or of some), each the same as it would be alone.

    All local devices share the work, and so do all processes of `jax.distributed`, each of which
    makes every n-th unit. On a CPU a unit's picture is the same to the bit on any number of them.

    Args:
      model: any model.
      layer: a name of `model.layers`, or "logits" for the classes.
      units: unit numbers, of "logits" class names too; all by default.
      kind: "channel", or "neuron" for single units at the layer's centre.
      out: a folder that receives each unit's picture as soon as it is finished; the same call goes
        on where an interrupted one stopped. In the end `index.html` is a page to browse the layer
        by, `spritemap.png` the labelled sheet, `sweep.json` the card and `images.npy` all pictures,
        which the result reads from there. Several processes need it, on a file system that all see.
      real: a data set of images; the page then shows beside each unit the nine patches that excite
        it most, and how faithful its picture is (`rvis.faithfulness`). Needs `out`.
      **options: of `visualize`.

    Returns:
      A Result with one member a unit.

    Raises:
      ValueError: naming `out`, if the folder holds a sweep with other arguments, or where several
        processes have none; otherwise as `visualize`.
      RuntimeError: naming `out`, where another process has ended before its share was drawn.

    Example:
      >>> import rvis
      >>> model = rvis.load("mnist_cnn")
      >>> rvis.sweep(model, "conv1", range(3), steps=4, transforms=()).images.shape
      (3, 28, 28, 1)
    """
    before = engine.compiled()
    checks.choice("kind", kind, _KINDS)
    checks.choice("layer", layer, (*model.layers, LOGITS))
    plan = make_plan(model, (layer,), **options)
    shapes = layer_shapes(model, plan.shown)
    width = shapes[layer][-1] if layer in shapes else 1
    if units is not None and not isinstance(units, Iterable):
        raise TypeError(f"units: a list of numbers was expected, given {units!r}")
    given = list(range(width) if units is None else units)
    numbers = unit_numbers(given, (width,), model, layer).tolist()
    objective = _KINDS[kind](layer, numbers)
    objectives.check(objective, model, plan.shown)
    if real is not None:
        ranking.check_dataset("real", real, model)
    if out is None:
        if real is not None:
            raise ValueError("out: a folder was expected, to which real examples go, given None")
        if jax.process_count() > 1:
            raise ValueError("out: a folder was expected, where several processes meet, given None")
        return visualize(model, objective, **options)
    folder = Path(out)
    if plan.start is not None:
        checks.one_or_each("start", len(plan.start), len(numbers), "units")
    store = _Store(folder / "units", plan.fingerprint(model, f"{kind} of {layer}"))
    share = numbers[jax.process_index() :: jax.process_count()]
    joined = f"joined_{checkpoints.fingerprint(store.about, np.asarray(numbers))}"
    with processes.together(folder / "processes") as (tell, told, wait):
        missing = [number for number in share if store.load(number) is None]
        step = engine.at_once(plan.algorithm.pixels, len(missing), options.get("chunk"))
        with processes.behind(step) as later:
            for first in range(0, len(missing), step):
                some = missing[first : first + step]
                # Named after its units, so that other chunks never find another's state.
                state = folder / "state" / checkpoints.fingerprint(store.about, np.asarray(some))
                mine = options.copy()
                if plan.start is not None and len(plan.start) > 1:
                    mine["start"] = plan.start[np.asarray([numbers.index(n) for n in some])]
                result = visualize(model, _KINDS[kind](layer, some), checkpoint=state, **mine)
                for i, number in enumerate(some):
                    later(store.save, number, result, i, plan.snapshots)
        wait(lambda: all(store.file(n, ".npz").exists() for n in numbers), "its units were drawn")
        if jax.process_index() == 0:
            about = plan.describe(model, objective, function="sweep")
            about["compiled"] = engine.compiled(before)._asdict()
            _join(folder, store, numbers, about, plan.snapshots, model, objective, real)
            shutil.rmtree(folder / "state", ignore_errors=True)
            tell(joined)
        wait(lambda: told(0, joined), "the page was made")
    scores = np.stack([unit.scores for unit in store.units(numbers)])
    labels = objective.titles(model.classes)
    return Result(
        np.load(folder / "images.npy", mmap_mode="r"),
        scores,
        labels[:, None] if plan.algorithm.facets > 1 else labels,
        {mark: np.load(_stage(folder, mark), mmap_mode="r") for mark in plan.snapshots},
        (scores.max(1) == scores.min(1)) & (scores.shape[1] > 1),
        plan.describe(model, objective, function="sweep"),
    )


class _Unit(NamedTuple):
    """What a sweep keeps of a unit."""

    images: np.ndarray
    scores: np.ndarray
    snapshots: np.ndarray


class _Store(NamedTuple):
    """The folder of finished units, each in a file of its own that is whole or absent."""

    folder: Path
    about: str

    def file(self, number: int, suffix: str) -> Path:
        return self.folder / f"unit{number:05d}{suffix}"

    def save(self, number: int, result: Result, i: int, marks: Sequence[int]) -> None:
        pictures = result.images[i]
        sheet = grids.spritemap(pictures) if pictures.ndim == 4 else grids.to_pil(pictures)
        grids.save(sheet, self.file(number, ".png"))
        stages = [result.snapshots[mark][i] for mark in marks]
        unit = _Unit(pictures, result.scores[i], np.stack(stages) if stages else np.zeros(0))
        file = self.file(number, ".npz")
        with files.atomic(file) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, about=np.asarray(self.about), **unit._asdict())  # type: ignore[arg-type]

    def load(self, number: int) -> _Unit | None:
        file = self.file(number, ".npz")
        if not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as stored:
                same = str(stored["about"]) == self.about
                unit = _Unit(*(stored[field] for field in _Unit._fields))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"out: {file} cannot be read ({error}); delete it") from error
        if not same:
            raise ValueError(
                f"out: {file.parent} holds a sweep with other arguments; choose another folder or "
                "delete it"
            )
        return unit

    def units(self, numbers: Iterable[int]) -> Iterator[_Unit]:
        for number in numbers:
            unit = self.load(number)
            if unit is None:
                raise ValueError(f"out: {self.file(number, '.npz')} has gone; run the sweep again")
            yield unit


def _join(
    folder: Path,
    store: _Store,
    numbers: list[int],
    about: Mapping[str, Any],
    marks: Sequence[int],
    model: Model,
    objective: Objective,
    real: Dataset | None,
) -> None:
    """All pictures in one file, the labelled sheet, the card and the page, unit after unit."""
    labels = [str(label) for label in objective.titles(model.classes)]
    _stack(folder / "images.npy", (unit.images for unit in store.units(numbers)), len(numbers))
    for i, mark in enumerate(marks):
        stages = (unit.snapshots[i] for unit in store.units(numbers))
        _stack(_stage(folder, mark), stages, len(numbers))
    figures: list[dict[str, str]] = [{} for _ in numbers]
    examples = [""] * len(numbers)
    if real is not None:
        pictures = np.load(folder / "images.npy", mmap_mode="r")
        # Of several facets the first stands for all.
        shown = pictures.reshape(len(numbers), -1, *pictures.shape[-3:])[:, 0]
        found = faithfulness(model, objective, shown, real)
        for i, figure in enumerate(figures):
            figure["clean activation"] = f"{found.activation[i]:.4g}"
            figure["above real images"] = f"{found.percentile[i]:.1f} %"
            figure["rank among units"] = str(found.rank[i])
        for first in range(0, len(numbers), _PATCHES):
            some = numbers[first : first + _PATCHES]
            top = top_activations(model, objective.layers[0], some, real, min(9, len(real)))
            for i, (number, patches) in enumerate(zip(some, top.patches, strict=True), first):
                grids.save(grids.spritemap(patches, columns=3), store.file(number, "_real.png"))
                examples[i] = store.file(number, "_real.png").relative_to(folder).as_posix()
    entries = []
    for i, (number, unit) in enumerate(zip(numbers, store.units(numbers), strict=True)):
        dead = bool(len(unit.scores) > 1 and unit.scores.max() == unit.scores.min())
        told = {"score": f"{unit.scores[-1]:.4g}", **figures[i]}
        place = store.file(number, ".png").relative_to(folder).as_posix()
        entries.append(reports.Entry(labels[i], place, unit.scores, dead, told, examples[i]))
    grids.save(_sheet(store, numbers, labels), folder / "spritemap.png")
    files.write_json(folder / "sweep.json", {**about, "dead": [e.dead for e in entries]})
    reports.layer_page(
        folder / "index.html",
        entries,
        title=f"{model.name}: {objective.layers[0]}",
        about={name: str(about[name]) for name in ("size", "steps", "image", "key", "versions")},
    )


_PATCHES = 64
"""Units whose real patches are in memory at once."""


def _stage(folder: Path, mark: int) -> Path:
    return folder / f"images_step{mark}.npy"


def _stack(path: Path, arrays: Iterator[np.ndarray], count: int) -> None:
    """A .npy file of `count` arrays, of which no more than one is in memory."""
    first = next(arrays)
    with files.atomic(path) as temporary, open(temporary, "wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, *first.shape)}
        npy.write_array_header_1_0(stream, header)
        for array in itertools.chain([first], arrays):
            stream.write(np.ascontiguousarray(array, "<f4").tobytes())


def _sheet(store: _Store, numbers: list[int], labels: list[str]) -> Image.Image:
    """The labelled sheet, put together row by row: units, or the facets of one."""
    facets = next(store.units(numbers[:1])).images.ndim == 4
    across = 1 if facets else math.ceil(math.sqrt(len(numbers)))
    sheet: Image.Image | None = None
    for row, first in enumerate(range(0, len(numbers), across)):
        part = slice(first, first + across)
        pictures = np.stack([unit.images for unit in store.units(numbers[part])])
        titles, columns = labels[part], across
        if facets:
            pictures, columns = pictures[0], pictures.shape[1]
            titles = [f"{labels[row]} ({i + 1})" for i in range(columns)]
        strip = grids.grid(pictures, titles=titles, columns=columns)
        if sheet is None:
            height = -(-len(numbers) // across) * strip.height
            sheet = Image.new("RGB", (strip.width, height), (255,) * 3)
        sheet.paste(strip, (0, row * strip.height))
    assert sheet is not None
    return sheet
