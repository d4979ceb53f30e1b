"""Trains one of our networks and writes it with its card.

Command:  python scripts/train.py mnist_cnn DATA --out weights/mnist_cnn
          python scripts/train.py cifar_resnet DATA --norm l2 --eps 0.5 --out FOLDER
          python scripts/train.py cifar_resnet DATA --weights A --weights B --epochs 0 --out MEAN
Time:     minutes to hours; the card of every shipped model says how long. Ctrl-C is safe: the same
          command goes on from the last finished epoch.
Prints:   one line of figures an epoch, then the accuracy clean and under attack.
DATA is what `rvis.data.load` reads: a folder of MNIST's IDX files or of CIFAR's python batches, an
image folder SPLIT/CLASS/NAME, or a zip of one.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

import rvis
from rvis import files
from rvis.__main__ import reported
from rvis.data import Dataset
from rvis.models import architectures, registry
from rvis.models.weights import convert
from rvis.training import Adversary, Recipe, model_soup

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
from scripts.deepen import deepen


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = Recipe()
    p.add_argument("architecture", help="a name of rvis.list_models(), such as cifar_resnet")
    p.add_argument("data", type=Path)
    p.add_argument("--out", type=Path, required=True, help="the model's folder")
    p.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="FILE",
        help="to start from; given several times, their mean; without any the start is random",
    )
    p.add_argument(
        "--config",
        type=json.loads,
        default={},
        help="fields of the architecture that differ, as JSON:\n"
        """'{"stages": [1, 1, 1], "widths": [16, 32, 64]}'; beside weights, stages to grow to""",
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--epochs", type=int, default=default.epochs, help="0 writes the weights it starts from"
    )
    p.add_argument("--batch-size", type=int, default=default.batch_size)
    p.add_argument("--learning-rate", type=float, default=default.learning_rate)
    p.add_argument("--schedule", choices=("onecycle", "cosine"), default=default.schedule)
    p.add_argument("--weight-decay", type=float, default=default.weight_decay)
    p.add_argument("--label-smoothing", type=float, default=default.label_smoothing)
    p.add_argument("--crop", type=int, default=default.crop)
    p.add_argument("--no-flip", action="store_true")
    p.add_argument("--cutout", type=int, default=default.cutout)
    p.add_argument("--small", type=int, default=0, help="side of the windows of the first epochs")
    p.add_argument("--small-epochs", type=int, default=0)
    p.add_argument("--ema", type=float, default=default.ema)
    p.add_argument("--norm", choices=("l2", "linf"), help="train against this adversary")
    p.add_argument("--eps", type=float, default=0.5)
    p.add_argument("--attack-steps", type=int, default=1)
    p.add_argument("--attack-step-size", type=float, help="1.25 eps by default for one step")
    p.add_argument("--test-norm", choices=("l2", "linf"), default="l2")
    p.add_argument("--test-eps", type=float, default=0.5)
    p.add_argument("--test-steps", type=int, default=20)
    p.add_argument("--attacked", type=int, help="test images to attack; all by default")
    p.add_argument("--restarts", type=int, default=1)
    p.add_argument("--licence", default="", help="of the data, for the card")
    p.add_argument("--data-name", default="", help="of the data, for the card")
    return p


def command(arguments: list[str], paths: tuple[str, ...]) -> str:
    """The command line with its input files by name alone: where they lay is nobody's business."""
    words = [Path(word).name if word in paths else word for word in arguments]
    return shlex.join(["python", "scripts/train.py", *words])


def start(a: argparse.Namespace, training: Dataset) -> rvis.Model:
    """The network to go on from, or an untrained one for the images and classes of the data."""
    if "random" in a.weights:
        raise ValueError("weights: files were expected; without any the network begins at random")
    if a.weights:
        models = [rvis.load(a.architecture, weights=file) for file in a.weights]
        model = models[0]
        if len(models) > 1:
            # Some ten thousand images tell the statistics of BatchNorm well enough.
            some = training.images[:: max(1, len(training) // 10_000)]
            how = {"crop": a.crop, "flip": not a.no_flip, "cutout": a.cutout, "key": a.seed}
            model = model_soup(models, some, batch_size=min(250, len(some)), **how)
        if set(a.config) - {"stages"}:
            raise ValueError(f"config: beside weights, stages alone can grow, given {a.config}")
        return deepen(model, a.config["stages"], key=a.seed) if a.config else model
    return architectures.build(
        a.architecture,
        weights="random",
        config={**a.config, "classes": len(training.classes)},
        key=a.seed,
        input_shape=training.images.shape[1:],
        classes=training.classes,
    )


def report(epoch: int, figures: Mapping[str, float]) -> None:
    """Prints a line of figures."""
    line = f"epoch {epoch}  loss {figures['loss']:.4f}"
    line += f"  training accuracy {figures['accuracy']:.2%}"
    line += f"  test accuracy {figures['test_accuracy']:.2%}  {figures['seconds']:.0f} s"
    print(line, flush=True)


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Trains, evaluates and writes; the exit status."""
    p = parser()
    a = p.parse_args(arguments)
    adversary = None
    if a.norm:
        size = a.attack_step_size or (1.25 * a.eps if a.attack_steps == 1 else None)
        adversary = Adversary(a.norm, a.eps, a.attack_steps, size)
    recipe = None
    if a.epochs != 0:
        recipe = Recipe(
            epochs=a.epochs,
            batch_size=a.batch_size,
            learning_rate=a.learning_rate,
            schedule=a.schedule,
            weight_decay=a.weight_decay,
            label_smoothing=a.label_smoothing,
            crop=a.crop,
            flip=not a.no_flip,
            cutout=a.cutout,
            small=a.small,
            small_epochs=a.small_epochs,
            ema=a.ema,
            adversary=adversary,
        )
    attack = Adversary(a.test_norm, a.test_eps, a.test_steps)
    training, test = rvis.data.load(a.data, "train"), rvis.data.load(a.data, "test")
    model = start(a, training)
    if recipe is None and model.classes != training.classes:
        raise ValueError(
            f"data: the classes {model.classes} of the weights were expected, given "
            f"{training.classes}"
        )
    started = time.perf_counter()
    a.out.mkdir(parents=True, exist_ok=True)
    checkpoint = a.out / "checkpoint"
    if recipe is not None:
        model = rvis.train(
            model,
            training,
            recipe,
            key=a.seed,
            checkpoint=checkpoint,
            test=test.take(slice(0, None, 10)),
            callback=report,
        )
    minutes = (time.perf_counter() - started) / 60
    about = registry.describe(model)
    convert.save(a.out / "weights.safetensors", model, about)
    clean = rvis.evaluate(model, test)
    attacked = len(test) if a.attacked is None else min(a.attacked, len(test))
    sample = test.take(np.linspace(0, len(test) - 1, attacked).astype(int))
    robust = rvis.evaluate(model, sample, adversary=attack, restarts=a.restarts)
    print(f"clean {clean:.2%}, under {attack} {robust:.2%}, trained in {minutes:.1f} min")
    weights = (a.out / "weights.safetensors").read_bytes()
    card = {
        **about,
        "name": a.out.name,
        "data": a.data_name or a.data.name,
        "licence_of_data": a.licence,
        "command": command(arguments or sys.argv[1:], (str(a.data), *a.weights)),
        "seed": a.seed,
        "recipe": dataclasses.asdict(recipe) if recipe is not None else None,
        "minutes": round(minutes, 1),
        "device": str(jax.devices()[0]),
        "test_images": len(test),
        "accuracy": round(clean, 4),
        "attack": {
            "norm": attack.norm,
            "eps": attack.eps,
            "steps": attack.steps,
            "step_size": attack.step_size,
            "random_start": attack.random_start,
            "restarts": a.restarts,
            "test_images": attacked,
            "accuracy": round(robust, 4),
        },
        "bytes": len(weights),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    files.write_json(a.out / "card.json", card)
    if recipe is not None:
        shutil.rmtree(checkpoint, ignore_errors=True)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
