"""What can one robust classifier make? Images generated, sketched, translated and enlarged.

Command:  python scripts/examples/image_synthesis.py --out out/synthesis
Time:     half a minute on two cores.
Writes:   a folder for each task. Opens as a notebook in an editor that knows `# %%` cells.
"""

# %%
import argparse
from pathlib import Path

import numpy as np

import rvis
from rvis import synthesis

parser = argparse.ArgumentParser(description="Images from one robust classifier.")
parser.add_argument("--out", type=Path, default=Path("out/synthesis"))
out = parser.parse_known_args()[0].out

model = rvis.load("cifar10_resnet_robust")

# %% [markdown]
# **Generation**: a draw from each class's Gaussian, then up its logit.

# %%
names = ["airplane", "bird", "deer", "horse", "ship", "truck"]
made = synthesis.generate(model, names)
made.save(out / "generated")
made.show()

# %% [markdown]
# **From a drawing**: a few boxes of colour become a ship.

# %%
drawing = np.ones((32, 32, 3), np.float32) * (0.6, 0.75, 0.9)
drawing[20:] = (0.1, 0.3, 0.5)
drawing[15:21, 5:27] = (0.55, 0.15, 0.1)
drawing[9:15, 12:20] = (0.95, 0.95, 0.95)
sketched = synthesis.sketch(model, drawing, "ship")
sketched.save(out / "sketched")
sketched.show()

# %% [markdown]
# **Translation**: the last two images become trucks and ships.

# %%
translated = synthesis.translate(model, made.images[-2:], ["truck", "ship"])
translated.save(out / "translated")
translated.show()

# %% [markdown]
# **Super-resolution**: from 8 by 8 pixels of each image to 32 by 32.

# %%
small = made.images.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4))
sharp = synthesis.super_resolve(model, small, 4, names, eps=4.0, step_size=0.25, steps=40)
sharp.save(out / "sharp")
sharp.show()
