"""Measures a model's accuracy: a shipped one's beside its card, any other's, or on photographs.

Command:  python scripts/evaluate.py cifar10_resnet_robust DATA
          python scripts/evaluate.py NETWORK DATA [--weights FILE] --epsilons 2 8 --per-class 100
          python scripts/evaluate.py NETWORK PHOTOGRAPHS [--weights FILE]
Time:     2 to 10 minutes on two cores, most of it the attack; `--count 1000` takes a tenth.
          Photographs take seconds.
Prints:   a table: clean and robust accuracy, measured and on the card, with the 95 % interval; exit
          status 1 where a figure lies outside it. An attack with other `--steps` or `--restarts`
          than the card's is shown beside it, not judged by it. Of a network without a card, clean
          accuracy and that under PGD within each of --epsilons. On photographs, how many have their
          class at the first place and among the first five.
DATA is what `rvis.data.load` reads; PHOTOGRAPHS a folder of pictures named after their classes of
ImageNet (`king_penguin.jpg`). NETWORK is a name or path of `rvis.load`, or one of the packages of
the extra `imagenet` (`efficientnet_lite0`). Weights whose network took other inputs than its
architecture's usual ones need --mean and --std, of images in [0, 1], and perhaps --bicubic.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
import rvis
from rvis.__main__ import reported
from rvis.data import imagenet
from rvis.data.preparation import Preparation
from rvis.models import architectures
from rvis.models.weights import convert
from rvis.training import Adversary
from scripts.gallery import networks


def network(a: argparse.Namespace) -> rvis.Model:
    """The model that the command names."""
    if a.weights is None:
        return networks.load(a.model)
    if a.mean is None and a.std is None and not a.bicubic:
        return rvis.load(a.model, weights=a.weights)
    preparation = Preparation(interpolation="bicubic", torchvision=False) if a.bicubic else None
    return architectures.build(
        a.model,
        weights=convert.read_state_dict(a.weights)[0],
        mean=a.mean,
        std=a.std,
        preparation=preparation,
    )


def on_photographs(model: rvis.Model, paths: list[Path]) -> None:
    """How many photographs have their class, which they are named after, at the top."""
    labels = np.array([imagenet.index(path.stem) for path in paths])
    order = np.argsort(-np.asarray(model(model.prepare(paths))), axis=1)
    hits = order[:, :5] == labels[:, None]
    print(f"{model.name} on {len(paths)} photographs")
    print(f"  top-1 {hits[:, 0].sum()}, top-5 {hits.any(1).sum()}")


def without_card(model: rvis.Model, test: rvis.data.Dataset, a: argparse.Namespace) -> None:
    """Clean accuracy, and that under attack in balls about each image."""
    print(f"{model.name} on {len(test)} test images")
    print(f"  {'clean':40s} {rvis.evaluate(model, test):7.2%}")
    steps, images = a.steps or 10, test.floats()
    for epsilon in a.epsilons:
        options = {"eps": epsilon / 255, "steps": steps, "key": a.seed, "restarts": a.restarts or 1}
        held = ~rvis.attacks.pgd(model, images, test.labels, **options).success
        print(f"  {f'PGD-{steps} linf {epsilon:g}/255':40s} {held.mean():7.2%}")


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model", metavar="NETWORK")
    p.add_argument("data", type=Path)
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    p.add_argument("--mean", type=float, nargs="+", help="of images in [0, 1], with --weights")
    p.add_argument("--std", type=float, nargs="+")
    p.add_argument("--bicubic", action="store_true", help="resize photographs so, as Pillow does")
    p.add_argument("--epsilons", type=float, nargs="+", default=[], help="in 255ths, without card")
    p.add_argument("--count", type=int, help="test images, evenly spread; all by default")
    p.add_argument("--per-class", type=int, help="or the first so many of each class")
    p.add_argument("--steps", type=int, help="of the attack; the card's by default")
    p.add_argument("--restarts", type=int)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args(arguments)
    model = network(a)
    photographs = [path for path in a.data.glob("*.*") if path.suffix in (".jpg", ".png")]
    if photographs:
        on_photographs(model, sorted(photographs))
        return 0
    test = rvis.data.load(a.data, "test")
    if a.per_class:
        ranks = [np.flatnonzero(test.labels == i) for i in range(len(test.classes))]
        test = test.take(np.concatenate([rank[: a.per_class] for rank in ranks]))
    elif a.count:
        test = test.take(np.linspace(0, len(test) - 1, a.count).astype(int))
    if a.weights or a.epsilons:
        without_card(model, test, a)
        return 0
    card = rvis.card(a.model)
    said = card["attack"]
    steps = a.steps or said["steps"]
    size = said["step_size"] if steps == said["steps"] else None
    attack = Adversary(said["norm"], said["eps"], steps, size)
    attacked = min(len(test), said["test_images"])
    same = steps == said["steps"] and a.restarts in (None, said["restarts"])
    clean = rvis.evaluate(model, test)
    restarts = a.restarts or said["restarts"]
    sample = test.take(np.linspace(0, len(test) - 1, attacked).astype(int))
    robust = rvis.evaluate(model, sample, adversary=attack, restarts=restarts, key=a.seed)
    name = f"PGD-{steps} {attack.norm} {attack.eps:g}, {restarts} restart(s)"
    off = False
    print(f"{a.model} on {len(test)} test images")
    for title, measured, stated, count, judged in (
        ("clean", clean, card["accuracy"], len(test), True),
        (name, robust, said["accuracy"], attacked, same),
    ):
        half = 1.96 * math.sqrt(max(stated * (1 - stated), 1e-4) / count)
        off |= judged and abs(measured - stated) > half
        print(f"  {title:40s} {measured:7.2%}   card {stated:7.2%} ± {half:.2%}")
    return int(off)


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
