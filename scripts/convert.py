"""Turns anybody's weights for a reference architecture into one safetensors file that rvis loads.

Command:  python scripts/convert.py resnet50 resnet50.pth resnet50.safetensors
          python scripts/convert.py cifar_resnet cifar_l2_0_5.pt madry.safetensors --config \
'{"stages": [3, 4, 6, 3], "widths": [64, 128, 256, 512], "bottleneck": true}'
Time:     a few seconds, and what reading the file takes.
Prints:   one line: what was written, of which architecture, how many weights, classes and bytes.
.safetensors, .pth, .pt and .bin are read; PyTorch is not needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax

from rvis.__main__ import reported
from rvis.models import architectures, registry
from rvis.models.weights import convert


def config(text: str) -> dict[str, Any]:
    """A module's fields from JSON; argparse names it in its error."""
    return json.loads(text)


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Reads, fits and writes; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("architecture", help="such as resnet50; rvis.list_models() has them all")
    p.add_argument("source", metavar="IN", type=Path, help=".safetensors, .pth, .pt or .bin")
    p.add_argument("out", metavar="OUT", type=Path, help="a name ending in .safetensors")
    p.add_argument("--config", type=config, help="fields of the module that differ, in JSON")
    p.add_argument("--mean", type=float, nargs="+", help="of images in [0, 1], one a channel")
    p.add_argument("--std", type=float, nargs="+")
    p.add_argument("--classes", type=Path, help="a text file with one class name a line")
    a = p.parse_args(arguments)
    classes = a.classes.read_text(encoding="utf-8").splitlines() if a.classes else ()
    model = architectures.build(
        a.architecture,
        weights=convert.read_state_dict(a.source)[0],
        config=a.config,
        mean=tuple(a.mean) if a.mean else None,
        std=tuple(a.std) if a.std else None,
        classes=tuple(classes),
    )
    convert.save(a.out, model, registry.describe(model))
    about = registry.describe(model)
    weights = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    print(
        f"{a.out}: {about['architecture']}, {weights:,} weights, {about['config']['classes']} "
        f"classes, {a.out.stat().st_size:,} bytes"
    )
    return 0


if __name__ == "__main__":
    from rvis import keep_programs

    keep_programs()
    sys.exit(main())
