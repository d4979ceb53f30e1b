"""What does adversarial training change? The same questions to two networks, side by side.

Command:  python scripts/examples/robust_beside_standard.py --out out/beside
Time:     half a minute on two cores.
Writes:   pictures of the classes, gradients, and the robustness curves of both.
Opens as a notebook in an editor that knows `# %%` cells.
"""

# %%
import argparse
from pathlib import Path

import numpy as np

import rvis
from rvis import attacks, attribution, synthesis
from rvis.objectives import logit
from rvis.plotting import figures, grids

parser = argparse.ArgumentParser(description="A robust network beside a standard one.")
parser.add_argument("--out", type=Path, default=Path("out/beside"))
out = parser.parse_known_args()[0].out

names = ("cifar10_resnet", "cifar10_resnet_robust")
standard, robust = models = [rvis.load(name) for name in names]
shown = ["airplane", "automobile", "bird", "horse", "ship", "truck"]
labels = np.asarray([robust.classes.index(name) for name in shown])

# %% [markdown]
# **Classes**, by nothing but the gradient: the standard network is satisfied with noise.

# %%
steepest = rvis.optimizers.steepest(0.5, norm="l2")
classes = [
    rvis.visualize(
        model, logit(labels), image="pixel", transforms=(), optimizer=steepest, steps=60
    ).images
    for model in models
]
grids.save(grids.grid(classes, titles=shown, row_titles=names), out / "classes.png")

# %% [markdown]
# **Gradients** of the class with respect to images that the robust network generated.

# %%
images = synthesis.generate(robust, shown).images
heats = [attribution.gradient(model, images, labels).heatmaps() for model in models]
rows = [images, *(grids.overlay(images, heat, style="map") for heat in heats)]
grids.save(grids.grid(rows, titles=shown, row_titles=("image", *names)), out / "gradients.png")

# %% [markdown]
# **Attacks** of growing size: how many of these images each network still takes for what they are.

# %%
radii = (0, 1, 2, 4, 8)
curves = [
    attacks.robustness(model, images, labels, epsilons=radii, norm="l2", steps=20)
    for model in models
]
ax = figures.axes()
for curve in curves:
    curve.plot(ax)
figures.save(ax, out / "robustness.png")
