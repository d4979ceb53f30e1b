"""Why this class? Maps of the same images by several methods, and how good the maps are.

Command:  python scripts/examples/attribution.py --out out/attribution
Time:     half a minute on two cores.
Writes:   attribution.png, a row for each image and a column for each method, and prints
          what deletion finds. Opens as a notebook in an editor that knows `# %%` cells.
"""

# %%
import argparse
from pathlib import Path

import numpy as np

import rvis
from rvis import attribution, synthesis
from rvis.analysis import metrics
from rvis.plotting import grids

parser = argparse.ArgumentParser(description="Attribution of a robust network's decisions.")
parser.add_argument("--out", type=Path, default=Path("out/attribution"))
out = parser.parse_known_args()[0].out

model = rvis.load("cifar10_resnet_robust")
shown = ["automobile", "deer", "horse", "ship"]
labels = np.asarray([model.classes.index(name) for name in shown])
images = synthesis.generate(model, shown, key=1).images

# %% [markdown]
# Every method is `f(model, images, target)`; the target is a class, a unit or any objective.

# %%
found = {
    "gradient": attribution.gradient(model, images, labels),
    "integrated": attribution.integrated_gradients(model, images, labels, baseline=0.5),
    "SmoothGrad": attribution.smoothgrad(model, images, labels),
    "Grad-CAM": attribution.grad_cam(model, images, labels, layer="layer3"),
    "occlusion": attribution.occlusion(model, images, labels, window=6, stride=2, baseline=0.5),
}
columns = [grids.overlay(images, result.heatmaps(), style="map") for result in found.values()]
rows = list(zip(images, *columns, strict=True))
figure = grids.grid(rows, titles=("image", *found), row_titles=shown)
grids.save(figure, out / "attribution.png")

# %% [markdown]
# **Completeness.** Integrated gradients add up to what the logit gained from the baseline.

# %%
print("gap of completeness:", found["integrated"].gap)

# %% [markdown]
# **Deletion.** The area is small where the pixels that a map ranks first matter most.

# %%
for name, result in found.items():
    curve = metrics.deletion(model, images, result.heatmaps(), labels, progress=False)
    print(f"{name:>12}: deletion area {np.mean(curve.area):.3f}")
