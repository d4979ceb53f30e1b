"""Non-negative matrix factorization beside scikit-learn's, from the same starts.

Command:  python scripts/nmf_check.py ACTIVATIONS.npy [--groups 6] [--seeds 3]
          (with the `bench` extra)
Time:     seconds.
Prints:   a table of ‖A − W·H‖ / ‖A‖ for NNDSVD and for random starts: scikit-learn with its
          defaults, scikit-learn with as many rounds as ours, and ours.
ACTIVATIONS.npy holds (..., C) numbers of at least 0, such as those of the article 'The Building
Blocks of Interpretability'. Exit status 1 where ours is more than 1 % above scikit-learn's.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.decomposition import NMF

from rvis.__main__ import reported
from rvis.concepts import factors


def theirs(matrix: np.ndarray, start: tuple[np.ndarray, np.ndarray], **options: float) -> float:
    """scikit-learn's relative residual."""
    w, h = (part.astype(np.float64) for part in start)
    solver = NMF(w.shape[1], init="custom", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged is what is being measured
        w = solver.fit_transform(matrix, W=w, H=h)
    return float(np.linalg.norm(matrix - w @ solver.components_) / np.linalg.norm(matrix))


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Factorizes and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("activations", type=Path)
    p.add_argument("--groups", type=int, default=6)
    p.add_argument("--seeds", type=int, default=3, help="random starts")
    p.add_argument("--steps", type=int, default=500)
    a = p.parse_args(arguments)
    given = np.load(a.activations, allow_pickle=False)
    factors.nmf(given, a.groups, steps=1)
    matrix = given.reshape(-1, given.shape[-1]).astype(np.float64)
    starts = {"nndsvd": factors.starting_factors("nndsvd", matrix, a.groups)}
    for seed in range(a.seeds):
        starts[f"random, key {seed}"] = factors.starting_factors("random", matrix, a.groups, seed)
    good = True
    print("| start | scikit-learn | as many rounds | rvis |\n|---|---|---|---|")
    for name, start in starts.items():
        default = theirs(matrix, start)
        long = theirs(matrix, start, max_iter=a.steps, tol=0)
        ours = factors.nmf(matrix, a.groups, start=start, steps=a.steps).residual
        good &= ours <= 1.01 * min(default, long)
        print(f"| {name} | {default:.5f} | {long:.5f} | {ours:.5f} |")
    return int(not good)


if __name__ == "__main__":
    from rvis import keep_programs

    keep_programs()
    sys.exit(main())
