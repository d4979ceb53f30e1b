"""From neurons to concepts: a sparse autoencoder on a layer, its figures, its page; and TCAV.

Command:  python scripts/concepts.py [DATA] [--model efficientnet_lite0] [--layer blocks.4.2]
          [--weights FILE] [--images 5000] [--width 8] [--active 32] [--epochs 2] [--store FILE.npy]
          [--show 24] [--clip scenes] [--words FILE] [--photos FOLDER] [--tcav LAYER …]
          [--json FILE] [--out FOLDER]
Time:     on two cores some minutes for the activations of 5,000 images, a few for the training,
          and one minute for every ten concepts of the page; half a minute for each of TCAV's tests.
Prints:   with DATA, the explained variance, how many latents are on and how many are dead after
          each epoch; the purity of the latents' and the channels' top nine images, and their
          difference with a 95 % interval; the rank correlation of effects by gradient and by
          ablation; where the page is. With --photos, a folder that has zebra.jpg and
          school_bus.jpg, whether either class depends on drawn stripes more than on random
          pictures, at each layer of --tcav (by default --layer), and of how many fresh random
          concepts the same is said.
DATA is what `rvis.data.load` reads; its images are enlarged to the network's input. MODEL is what
`rvis.load` takes: an architecture comes with --weights or else pretrained. --clip puts the nearest
of the words (a text a line; colours and shapes by default) to each concept, by what
`rvis.clip.load` takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image

import rvis
from rvis import concepts, files
from rvis.__main__ import reported
from rvis.analysis import metrics
from rvis.data import Dataset

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white", "grey")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")


def enlarged(data: Dataset, count: int, size: tuple[int, int]) -> Dataset:
    """`count` images, evenly spread, at the network's size."""
    some = data.take(np.linspace(0, len(data) - 1, min(count, len(data))).astype(int))
    if some.images.shape[1:3] == size:
        return some
    images = np.empty((len(some), *size, 3), np.uint8)
    for i, image in enumerate(some.images):
        rows, columns = size
        picture = PIL.Image.fromarray(image).resize((columns, rows), PIL.Image.Resampling.BICUBIC)
        images[i] = np.asarray(picture)
    return Dataset(images, some.labels, some.classes, some.name)


def drawn(kind: str, count: int, side: int, seed: int) -> np.ndarray:
    """Pictures (n, H, W, 3) of stripes, dots or noise, of many angles, scales and contrasts."""
    rng = np.random.default_rng([seed, len(kind)])
    rows, columns = np.mgrid[:side, :side] / side
    pictures = np.empty((count, side, side, 3), np.float32)
    for i in range(count):
        waves, angle = rng.uniform(4, 16), rng.uniform(0, np.pi)
        across = np.cos(angle) * columns + np.sin(angle) * rows
        along = np.cos(angle) * rows - np.sin(angle) * columns
        if kind == "stripes":
            level = np.sin(2 * np.pi * (waves * across + rng.random()))
        elif kind == "dots":
            level = np.sin(2 * np.pi * waves * across) * np.sin(2 * np.pi * waves * along) - 0.2
        else:
            cells = max(2, int(2 * waves))
            small = PIL.Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
            level = np.asarray(small.resize((side, side), PIL.Image.Resampling.BICUBIC))
        shape = 1 / (1 + np.exp(-rng.uniform(3, 12) * level))
        dark, light = rng.uniform(0, 0.35), rng.uniform(0.65, 1)
        tint = 1 - rng.uniform(0, 0.15, 3)
        pictures[i] = (dark + (light - dark) * shape)[..., None] * tint
    return np.clip(pictures, 0, 1)


def views(path: Path, count: int, side: int, seed: int = 0) -> np.ndarray:
    """Random windows of a photograph, some of them mirrored, at the network's size."""
    rng = np.random.default_rng(seed)
    photo = PIL.Image.open(path).convert("RGB")
    pictures = []
    for _ in range(count):
        edge = int(min(photo.size) * rng.uniform(0.6, 1))
        left, top = (int(rng.integers(0, length - edge + 1)) for length in photo.size)
        part = photo.crop((left, top, left + edge, top + edge)).resize((side, side))
        array = np.asarray(part, np.float32) / 255
        pictures.append(array[:, ::-1] if rng.random() < 0.5 else array)
    return np.stack(pictures)


def dull(count: int, side: int, seed: int) -> np.ndarray:
    """As many dots as noise, in turn."""
    both = [drawn(kind, count // 2, side, seed) for kind in ("dots", "noise")]
    return np.stack(both, 1).reshape(-1, side, side, 3)


def stripes(model: Any, layer: str, photos: Path, seed: int, fresh: int) -> dict[str, Any]:
    """TCAV of drawn stripes against drawn dots and noise, for zebra and school bus.

    Args:
      model, layer: a classifier of ImageNet, and one of its layers.
      photos: a folder with zebra.jpg and school_bus.jpg.
      seed: of the drawings and the tests.
      fresh: how many random concepts are tested as stripes are, for school bus.
    """
    side = model.input_shape[0]
    random, shown = dull(200, side, seed), drawn("stripes", 100, side, seed)
    told: dict[str, Any] = {"layer": layer}
    for name in ("zebra", "school bus"):
        images = views(photos / f"{name.replace(' ', '_')}.jpg", 24, side)
        ask = partial(concepts.tcav, model, images, name, layer)
        found = ask(shown, random, samples=999, key=seed)
        told[name] = figures = {
            "score": found.score,
            "score of random concepts": float(found.null.mean()),
            "cosine": float(found.sensitivity.mean()),
            "spread of random concepts": float(np.sqrt(np.square(found.null_sensitivity).mean())),
            "p": found.p,
            "p by Welch": found.p_welch,
            "accuracy": float(found.accuracy.mean()),
        }
        text = ", ".join(f"{k} {v:.3g}" for k, v in figures.items())
        print(f"TCAV of stripes for {name} at {layer}: {text}", flush=True)
    # Each has random pictures of its own, so that the tests are independent.
    seeds = range(seed + 1, seed + 1 + 2 * fresh, 2)
    others = [ask(dull(100, side, i), dull(200, side, i + 1), key=i) for i in seeds]
    low = metrics.share(np.asarray([each.p < 0.05 for each in others]))
    told["random"] = {
        "concepts": fresh,
        "p < .05": sum(each.p < 0.05 for each in others),
        "interval": [low.low, low.high],
        "p < .01": sum(each.p < 0.01 for each in others),
        "p by Welch < .05": sum(each.p_welch < 0.05 for each in others),
    }
    print(f"random pictures in the place of stripes at {layer}: {told['random']}", flush=True)
    return told


def namer(name: str, words: Path | None) -> Callable[[np.ndarray], list[str]]:
    """What gives concepts the nearest of some texts, by their top images."""
    clip = rvis.clip.load(name)
    side = clip.image.input_shape[0]
    if words is not None:
        texts = words.read_text(encoding="utf-8").split("\n")
        texts = [text.strip() for text in texts if text.strip()]
    else:
        texts = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]

    def look(images: np.ndarray) -> np.ndarray:
        small = jax.image.resize(images, (len(images), side, side, 3), "linear")
        return rvis.clip.encode_image(clip, np.asarray(small))

    def name_all(images: np.ndarray) -> list[str]:
        encode_text = partial(rvis.clip.encode_text, clip)
        given, above = concepts.label(images, texts, encode_image=look, encode_text=encode_text)
        return [f"{text} ({gap:+.2f})" for text, gap in zip(given, above, strict=True)]

    return name_all


def autoencoder(model: Any, a: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Trains, measures, writes the page and prints; the figures."""
    height, width, _ = model.input_shape
    data = enlarged(rvis.data.load(a.data, a.split), a.images, (height, width))
    began, spent = time.perf_counter(), time.process_time()

    def show(epoch: int, figures: Any) -> None:
        text = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        print(f"epoch {epoch}: {text}", flush=True)

    trained = concepts.train_sae(
        model,
        a.layer,
        data,
        width=a.width,
        kind=a.kind,
        active=a.active,
        epochs=a.epochs,
        batch_size=a.batch,
        key=a.seed,
        store=a.store,
        checkpoint=out / "checkpoint",
        callback=show,
    )
    told = {"epochs": trained.figures, "seconds": time.perf_counter() - began}
    told["processor seconds"] = time.process_time() - spent
    print(f"trained in {told['seconds']:.0f} seconds", flush=True)
    found = trained.concepts
    concepts.save(out / "sae.safetensors", found)
    of = concepts.measure(model, found, data, store=a.store)
    channels = concepts.channels(a.layer, found.decode.vectors.shape[1])
    base = concepts.measure(model, channels, data, store=a.store)
    gap, ends = concepts.compare(of, base, key=a.seed)
    told |= {
        "latents": len(found),
        "explained": of.explained,
        "active": of.active,
        "purity of latents": float(np.nanmean(of.purity)),
        "latents with purity": int(np.isfinite(of.purity).sum()),
        "purity of channels": float(np.nanmean(base.purity)),
        "difference": gap,
        "interval": ends,
    }
    print(f"explained variance {of.explained:.3f} with {of.active:.1f} latents on", flush=True)
    print(
        f"purity of the top nine: latents {told['purity of latents']:.3f}, channels "
        f"{told['purity of channels']:.3f}; {gap:+.3f} ({ends[0]:+.3f} to {ends[1]:+.3f})",
        flush=True,
    )
    if a.show:
        score = np.nan_to_num(of.purity) + np.nan_to_num(of.variance / of.variance.max())
        chosen = np.sort(np.argsort(-score, kind="stable")[: a.show])
        draw = partial(rvis.visualize, steps=a.steps, key=a.seed) if a.steps else None
        name = None if a.clip is None else namer(a.clip, a.words)
        page = concepts.report(model, found, data, out, chosen, measures=of, draw=draw, name=name)
        card = json.loads((out / "card.json").read_text(encoding="utf-8"))
        told["correlation"] = float(np.mean(card["correlation"]))
        print(f"rank correlation of effects {told['correlation']:.3f}\n{page}")
    return told


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Trains, measures, writes the page and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path, nargs="?")
    p.add_argument("--model", default="efficientnet_lite0")
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    p.add_argument("--layer", default="blocks.4.2")
    p.add_argument("--split", default="train")
    p.add_argument("--images", type=int, default=5000)
    p.add_argument("--width", type=int, default=8, help="latents for each channel")
    p.add_argument("--active", type=int, default=32, help="latents on at a place")
    p.add_argument("--kind", default="topk", help="topk, batchtopk, relu or jump")
    p.add_argument("--epochs", type=int, default=2)
    p.add_argument("--batch", type=int, default=2048, help="activation vectors a step")
    p.add_argument("--store", type=Path, help="a .npy file to keep the activations in")
    p.add_argument("--show", type=int, default=24, help="concepts of the page, the purest")
    p.add_argument("--steps", type=int, default=128, help="of their pictures; 0 for none")
    p.add_argument("--clip", help="names the page's concepts; what `rvis.clip.load` takes")
    p.add_argument("--words", type=Path, help="the names to choose from, one a line")
    p.add_argument("--photos", type=Path, help="with zebra.jpg and school_bus.jpg, for TCAV")
    p.add_argument("--tcav", nargs="+", metavar="LAYER", help="of TCAV; --layer by default")
    p.add_argument("--fresh", type=int, default=20, help="random concepts that TCAV tests")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", type=Path, help="a file for the figures")
    p.add_argument("--out", type=Path, help="out/MODEL_LAYER_concepts by default")
    a = p.parse_args(arguments)
    if a.data is None and a.photos is None:
        p.error("DATA, --photos, or both were expected")
    out = a.out or Path("out", f"{Path(a.model).name}_{a.layer}_concepts")
    told: dict[str, Any] = {"model": a.model, "layer": a.layer, "images": a.images}
    given = {"weights": a.weights} if a.weights else {}
    try:
        model = rvis.load(a.model, **given)
    except ValueError:
        model = rvis.load(a.model, pretrained=True)
    if a.photos is not None:
        told["tcav"] = {"model": a.model, "tests": []}
        for layer in a.tcav or [a.layer]:
            told["tcav"]["tests"].append(stripes(model, layer, a.photos, a.seed, a.fresh))
    if a.data is not None:
        told |= autoencoder(model, a, out)
    if a.json is not None:
        files.write_json(a.json, told)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
