"""Trains a small CLIP on generated scenes and writes it with its card.

Command:  python scripts/train_clip.py --out weights/clip/scenes
          python scripts/train_clip.py --start FOLDER --out weights/clip/scenes
          python scripts/train_clip.py --seed 1 --out FOLDER
Time:     see `minutes` in the card of the shipped one; within an hour on two cores. Ctrl-C is safe:
          the same command goes on from the last checkpoint.
Prints:   a line of figures every few hundred steps, then a table of zero-shot accuracies on scenes
          with held-out combinations of colour, shape and place, and on others.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax

from rvis import clip
from rvis.__main__ import reported

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
from scripts.clip_scenes import scenes
from scripts.clip_scenes.training import Recipe, train, zero_shot


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = Recipe()
    p.add_argument("--out", type=Path, required=True, help="the CLIP's folder")
    p.add_argument("--seed", type=int, default=0, help="of the weights, the scenes and the noise")
    p.add_argument("--start", type=Path, metavar="FOLDER", help="a CLIP of scenes to go on from")
    p.add_argument("--steps", type=int, default=default.steps)
    p.add_argument("--batch-size", type=int, default=default.batch_size)
    p.add_argument("--alike", type=int, default=default.alike)
    p.add_argument("--learning-rate", type=float, default=default.learning_rate)
    p.add_argument("--warmup", type=int, default=default.warmup)
    p.add_argument("--weight-decay", type=float, default=default.weight_decay)
    p.add_argument("--text-rate", type=float, default=default.text_rate)
    p.add_argument("--noise", type=float, default=default.noise)
    p.add_argument("--colour", type=float, default=default.colour)
    p.add_argument("--shift", type=int, default=default.shift)
    p.add_argument("--eps", type=float, default=default.eps, help="L2 radius of adversarial images")
    p.add_argument("--attack-steps", type=int, default=default.attack_steps)
    p.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    p.add_argument("--tested", type=int, default=2000, help="scenes of each kind to test on")
    p.add_argument(
        "--config",
        type=json.loads,
        default={},
        help="""sizes that differ, as JSON: '{"width": 128, "layers": 4}'""",
    )
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def report(step: int, figures: Mapping[str, float]) -> None:
    """Prints a line of figures."""
    line = f"step {step}  loss {figures['loss']:.4f}  own caption first {figures['accuracy']:.1%}"
    print(f"{line}  scale {figures['scale']:.1f}  {figures['seconds']:.0f} s", flush=True)


def origin(folder: Path) -> dict[str, object]:
    """What a card says of the CLIP that training went on from."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    told = ("command", "seed", "recipe", "minutes", "sha256", "start")
    return {name: card[name] for name in told if name in card}


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Trains, tests and writes; the exit status."""
    p = parser()
    a = p.parse_args(arguments)
    names = {field.name for field in dataclasses.fields(Recipe)}
    recipe = Recipe(**{name: value for name, value in vars(a).items() if name in names})
    config = dataclasses.replace(clip.SMALL, **a.config)
    # Three independent draws of one seed: weights, noise and scenes.
    weights, noise = jax.random.split(jax.random.key(a.seed))
    if a.start is None:
        start = clip.untrained(config, words=scenes.vocabulary(), key=weights, name=a.out.name)
    elif a.config:
        raise ValueError("config: that of --start was expected, given another")
    else:
        start = dataclasses.replace(clip.load(a.start), name=a.out.name)
    a.out.mkdir(parents=True, exist_ok=True)
    checkpoint = a.out / "checkpoint"
    begun = time.perf_counter()
    trained = train(
        start,
        recipe,
        key=noise,
        seed=a.seed,
        every=a.every,
        checkpoint=checkpoint,
        callback=report,
        progress=not a.quiet,
    )
    minutes = (time.perf_counter() - begun) / 60
    held_out = zero_shot(trained, count=a.tested, held_out=True)
    others = zero_shot(trained, count=a.tested, held_out=False)
    print(
        "\n| zero-shot accuracy | held-out combinations | others |\n|---|---|---|\n"
        + "\n".join(f"| {fact} | {held_out[fact]:.1%} | {others[fact]:.1%} |" for fact in held_out)
    )
    about = {
        "name": a.out.name,
        "data": "generated scenes (clip_scenes.scenes)",
        "licence_of_data": "none needed",
        "command": shlex.join(["python", "scripts/train_clip.py", *(arguments or sys.argv[1:])]),
        "seed": a.seed,
        "recipe": dataclasses.asdict(recipe),
        **({} if a.start is None else {"start": origin(a.start)}),
        "minutes": round(minutes, 1),
        "device": str(jax.devices()[0]),
        "held_out": [" ".join(values) for values in scenes.HELD_OUT],
        "test_scenes": a.tested,
        "zero_shot": {"held_out": held_out, "others": others},
    }
    clip.save(a.out, trained, about)
    shutil.rmtree(checkpoint, ignore_errors=True)
    return 0


if __name__ == "__main__":
    from rvis import keep_programs

    keep_programs()
    sys.exit(main())
