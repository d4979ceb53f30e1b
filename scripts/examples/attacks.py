"""Where does a network break? Small changes that fool it, targeted ones, and images of nothing.

Command:  python scripts/examples/attacks.py --out out/attacks
Time:     half a minute on two cores.
Writes:   a figure for each attack. Opens as a notebook in an editor that knows `# %%` cells.
"""

# %%
import argparse
from pathlib import Path

import numpy as np

import rvis
from rvis import attacks, synthesis

parser = argparse.ArgumentParser(description="Attacks on a standard network.")
parser.add_argument("--out", type=Path, default=Path("out/attacks"))
out = parser.parse_known_args()[0].out

model = rvis.load("cifar10_resnet")
shown = ["airplane", "bird", "frog", "horse", "ship", "truck"]
labels = np.asarray([model.classes.index(name) for name in shown])
# Images to attack: a robust network generates them, and the standard one names them.
images = synthesis.generate(rvis.load("cifar10_resnet_robust"), shown).images
taken = np.asarray(model(images)).argmax(-1)
print("taken for:", [model.classes[k] for k in taken])

# %% [markdown]
# **Projected gradient descent**: no pixel changes by more than 16/255 (these images are clear
# cases of their class; photographs fall to less).

# %%
fooled = attacks.pgd(model, images, taken, eps=16 / 255, steps=20)
print(f"accuracy under attack: {fooled.accuracy:.0%}")
fooled.save(out / "pgd")
fooled.show()

# %% [markdown]
# **Szegedy's box-constrained L-BFGS**: the smallest change that makes each image a cat.

# %%
targeted = attacks.lbfgs(model, images, taken, target="cat", binary_search_steps=6)
print("√(Σδ²/n):", targeted.distance("rms").round(4))
targeted.save(out / "lbfgs")
targeted.show()

# %% [markdown]
# **Fooling images**: from noise until the network is 99 % sure, though there is nothing to see.

# %%
nothing = attacks.fool(model, shown, confidence=0.99)
nothing.save(out / "fooling")
nothing.show()
