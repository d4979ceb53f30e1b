"""How fast is rvis beside its peers, and how near to what the machine can do?

Command:  python scripts/bench.py [GROUP …] [--data CIFAR10] [--rounds 5] [--json FILE]
          python scripts/bench.py step-ratio
          python scripts/bench.py startup
Time:     a minute or two a row on two cores. The peers come with the `bench` extra; for lucent and
          torchattacks also
          `pip install --no-deps torch-lucent kornia==0.4.1 torchattacks` (torchvision, which they
          ask for, is not needed) and `pip install decorator ipython`.
Prints:   a table a group: the median milliseconds of each side with their quartiles, the ratio, the
          peak memory, the first call with all compilation, and the share of the machine's measured
          rates that rvis reaches. A peer that is not installed is left out, which is said.
          Exit status 1 where two sides that should agree do not, or a goal is missed.
          `step-ratio` is what a step inside the scan costs beside a bare gradient of the same
          batch; `startup` what importing takes, and the first picture cold and with the
          compilation cache.
GROUP is bare, step, sweep, dream, attacks, attribution or shapley; all of them by default. Each
side has a process of its own; they make their calls in turn, so that a drift of the machine meets
both. Weights are the same on both sides: seeded ones of the six architectures, shipped ones of the
CIFAR networks. With --data, an image folder or CIFAR's batches, attacks and attributions have test
images; noise otherwise.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
from scripts.bench.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
