"""Kills long work at random moments and looks whether it goes on to the bits of an unbroken run.

Command:  python scripts/crash_check.py [--kills 20] [--only NAME …] [--seed 0] [--out FILE.json]
Time:     half a minute and three kills a minute for every function on two cores.
Prints:   for each function how often it was killed (SIGKILL), and whether what it gave in the end
          is what an unbroken run gives, to the bit; exit status 1 where one is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file

SETUP = """
import sys, dataclasses, hashlib, pathlib, jax, numpy as np, rvis
from rvis import attacks, attribution, data, evolve, objectives, style, training
from rvis.engine import checkpoints, queue
checkpoints.SECONDS, queue._TURN = 0.05, 0.05
jax.config.update("jax_compilation_cache_dir", {cache!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
folder, quiet = pathlib.Path(sys.argv[1]), dict(progress=False)
rng = np.random.default_rng(0)
digits, colours = rvis.load("mnist_cnn"), rvis.load("cifar10_resnet")
grey = rng.random((12, 28, 28, 1), dtype=np.float32)
photos = rng.random((4, 32, 32, 3), dtype=np.float32)
labels = np.arange(12) % 10
shapes = rng.integers(0, 256, (1024, 28, 28, 1), dtype=np.uint8)
levels = np.round(255 * grey) / np.float32(255)

@dataclasses.dataclass(frozen=True)
class Noisy:
    apply: object
    takes_key: bool = True

    def __call__(self, params, images, *, key=None, **options):
        key = jax.random.key(0) if key is None else key
        return self.apply(params, images + 0.1 * jax.random.normal(key, images.shape), **options)

drawing = digits.replace(apply=Noisy(digits.apply))
"""

CALLS = {
    "visualize": 'rvis.visualize(colours, objectives.channel("layer3", range(12)), steps=120, '
    "snapshots=(0, 50), checkpoint=folder, **quiet)",
    "sweep": 'rvis.sweep(colours, "layer2", range(12), steps=60, out=folder, **quiet)',
    "pgd": "attacks.pgd(digits, grey, labels, eps=0.05, steps=600, checkpoint=folder, **quiet)",
    "autoattack": "attacks.autoattack(digits, grey[:2], digits(grey[:2]).argmax(1), eps=0.02, "
    "checkpoint=folder, **quiet)",
    "quantized": "attacks.apgd(digits, levels, labels, eps=0.05, steps=600, quantize=True, "
    "checkpoint=folder, **quiet)",
    "eot": "attacks.pgd(drawing, grey, labels, eps=0.05, steps=200, eot=4, checkpoint=folder, "
    "**quiet)",
    "universal": "attacks.universal(digits, grey, digits(grey).argmax(1), eps=0.1, steps=600, "
    "batch_size=8, checkpoint=folder, **quiet)",
    "shapley": "attribution.shapley_sampling(colours, photos, labels[:4], players=4, "
    "permutations=256, checkpoint=folder, **quiet)",
    "map_elites": "evolve.map_elites(digits, generations=300, checkpoint=folder, **quiet)",
    "carlini_wagner": "attacks.carlini_wagner(digits, grey, labels, steps=100, "
    "binary_search_steps=4, checkpoint=folder, **quiet)",
    "robustness": "attacks.robustness(digits, grey, labels, epsilons=(0.02, 0.05, 0.1), "
    "steps=200, checkpoint=folder, **quiet)",
    "train": "training.train(rvis.load('mnist_cnn', weights='random'), data.Dataset(shapes, "
    "np.arange(1024, dtype=np.int32) % 10, tuple('0123456789'), 'noise'), "
    "training.Recipe(epochs=12, batch_size=64), checkpoint=folder, **quiet)",
    "match": 'rvis.match(colours, photos[:2], photos[2:], "layer4", steps=400, checkpoint=folder, '
    "**quiet)",
    "deepdream": 'rvis.deepdream(colours, photos[0], "layer2", checkpoint=folder, '
    "steps=200, **quiet)",
    "invert": 'rvis.invert(colours, photos, "layer2", steps=1500, checkpoint=folder, **quiet)',
    "style": "style.transfer(colours, photos[0], photos[1], steps=400, checkpoint=folder, **quiet)",
    "clip_invert": 'rvis.clip.invert(rvis.clip.load("scenes"), ["a red circle"], sizes=(32, 48), '
    "steps=200, samples=1, copies=2, checkpoint=folder, **quiet)",
}

END = """
leaves = jax.tree.leaves(vars(result), is_leaf=lambda leaf: isinstance(leaf, np.ndarray))
kept = [np.asarray(leaf) for leaf in leaves if isinstance(leaf, np.ndarray | jax.Array)]
kept = [array for array in kept if array.dtype != object]
assert kept
print(hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in kept)).hexdigest())
"""


def program(name: str, cache: str) -> str:
    """The Python code of one call, which prints the digest of what it gave."""
    return SETUP.format(cache=cache) + f"result = {CALLS[name]}\n" + END


def unbroken(code: str, folder: Path) -> tuple[str, float]:
    """What a run in a folder prints, and the seconds it took."""
    begun = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(run.stderr)
    return run.stdout.split()[-1], time.monotonic() - begun


def killed(code: str, folder: Path, seconds: float) -> bool:
    """Whether a run was still under way after so many seconds, when it was killed."""
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        return True
    return False


def main(arguments: list[str] | None = None) -> int:
    """Kills and resumes; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--kills", type=int, default=20, help="in all, shared out among the functions")
    p.add_argument("--only", nargs="+", choices=CALLS, default=list(CALLS))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, help="a JSON file for the figures")
    a = p.parse_args(arguments)
    chance = random.Random(a.seed)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for number, name in enumerate(a.only):
            code = program(name, str(root / "cache"))
            unbroken(code, root / f"{name}-compile")
            whole, seconds = unbroken(code, root / f"{name}-whole")
            _, idle = unbroken(SETUP.format(cache=str(root / "cache")) + "print(0)", root)
            folder, kills, left = root / f"{name}-killed", 0, []
            wanted = -(-(a.kills - number) // len(a.only))
            for _ in range(4 * wanted):
                dead = killed(code, folder, chance.uniform(1.2 * idle, max(seconds, 1.3 * idle)))
                if dead:
                    kills += 1
                    left.append(sum(1 for _ in folder.rglob("*.npz")) if folder.exists() else 0)
                    if kills == wanted:
                        break
                else:  # it came to its end: the next begins anew
                    shutil.rmtree(folder, ignore_errors=True)
            again, _ = unbroken(code, folder)
            rows.append({"name": name, "kills": kills, "files": left, "same": again == whole})
            print(
                f"{name:12} {kills} kills, files left {left}: "
                f"{'the same bits' if again == whole else 'OTHER BITS'}",
                flush=True,
            )
    if a.out is not None:
        a.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(row['kills'] for row in rows)} kills")
    return int(not all(row["same"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
