"""A network by RobustBench's protocol: AutoAttack on the first test images, and its JSON.

Command:  python scripts/robustbench.py MODEL DATA [--threat Linf] [--examples 1000] --out FOLDER
Time:     two hours for 1,000 images of CIFAR-10 and a small network on two cores.
Prints:   accuracy before and after each attack, and what casts doubt on it. FOLDER/MODEL.json has
          the fields of RobustBench's `model_info`, FOLDER/MODEL_THREAT the attacked images. After
          Ctrl-C the same command goes on.
DATA is what `rvis.data.load` reads. MODEL is a name of `rvis.list_models()`, a path that `load`
reads, or with `--architecture` a checkpoint of that architecture, such as RobustBench's own.
The radii are RobustBench's, 8/255 in Linf and .5 in L2 for CIFAR-10; `--eps` gives others.
"""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

import rvis
from rvis import attacks, files
from rvis.__main__ import reported

EPS = {"Linf": "8/255", "L2": "1/2", "L1": "12"}
"""As its leader boards of CIFAR-10 have them."""


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Attacks, writes and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model")
    p.add_argument("data", type=Path)
    p.add_argument("--architecture", help="of the checkpoint that MODEL is")
    p.add_argument("--threat", default="Linf", choices=EPS)
    p.add_argument("--eps", type=Fraction, help="such as 8/255")
    p.add_argument("--examples", type=int, default=1000, help="the first so many test images")
    p.add_argument("--out", type=Path, default=Path("out", "robustbench"))
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    a = p.parse_args(arguments)
    eps = Fraction(EPS[a.threat]) if a.eps is None else a.eps
    if a.architecture:
        model = rvis.load(a.architecture, weights=a.model)
    else:
        model = rvis.load(a.model)
    test = rvis.data.load(a.data, "test")
    test = test.take(slice(min(rvis.checks.count("--examples", a.examples), len(test))))
    name = Path(a.model).stem
    found = attacks.autoattack(
        model,
        np.asarray(test.floats()),
        test.labels,
        norm=a.threat.lower(),
        eps=float(eps),
        checkpoint=a.out / f"{name}_{a.threat}.part",
        progress=not a.quiet,
    )
    found.save(a.out / f"{name}_{a.threat}")
    percent = {key: f"{100 * value:.2f}" for key, value in found.accuracies.items()}
    files.write_json(
        a.out / f"{name}.json",
        {
            "name": name,
            "dataset": test.name,
            "architecture": a.architecture or model.name,
            "eps": str(eps),
            "threat_model": a.threat,
            "number_examples": len(test),
            "clean_acc": percent["clean"],
            "autoattack_acc": f"{100 * found.accuracy:.2f}",
            "after_each": percent,
            "flags": list(found.report.failed),
        },
    )
    print(f"{name}, {a.threat}, eps {eps}, the first {len(test)} images of {test.name}")
    print(found.table())
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
