"""What each kind of argument may not be, which arguments are of which kind, and what is fair."""

from __future__ import annotations

import types
from typing import Any

import numpy as np

import rvis

NAN = float("nan")


class _Odd:
    """An object of no kind."""

    def __repr__(self) -> str:
        return "an object"


NO_ARRAYS: dict[str, Any] = {
    "None": None,
    "text": "x",
    "object": _Odd(),
    "ragged": [[1.0], [2.0, 3.0]],
    "texts": np.array(["a", "b"]),
    "objects": np.array([_Odd()], object),
    "a dictionary": {"a": 1},
}
"""Wrong for every argument that is an array."""

NO_MODELS = {
    "None": None,
    "text": "mnist_cnn",
    "number": 3,
    "module": types,
    "function": len,
    "array": np.zeros((2, 3)),
    "class": rvis.Model,
    "a list": [1],
}

WRONG: dict[str, dict[str, Any]] = {
    "model": NO_MODELS,
    "images": NO_ARRAYS
    | {
        "NaN": np.full((2, 8, 8, 3), np.nan, np.float32),
        "one NaN": np.where(np.arange(384).reshape(2, 8, 8, 3) == 77, np.nan, 0.5),
        "infinite": np.full((2, 8, 8, 3), np.inf, np.float32),
        "255": np.full((2, 8, 8, 3), 255.0, np.float32),
        "uint8": np.zeros((2, 8, 8, 3), np.uint8),
        "complex": np.zeros((2, 8, 8, 3), np.complex64),
        "rank 2": np.zeros((8, 8), np.float32),
        "rank 5": np.zeros((1, 2, 8, 8, 3), np.float32),
        "empty": np.zeros((0, 8, 8, 3), np.float32),
        "5 channels": np.zeros((2, 8, 8, 5), np.float32),
    },
    "array": NO_ARRAYS
    | {
        "NaN": np.full((40, 5), np.nan),
        "infinite": np.full((40, 5), np.inf),
        "infinite as float32": np.full((40, 5), 1e300),
        "complex": np.zeros((40, 5), complex),
        "empty": np.zeros((0, 5)),
    },
    "maps": NO_ARRAYS
    | {
        "NaN": np.full((2, 8, 8), np.nan),
        "infinite": np.full((2, 8, 8), -np.inf),
        "infinite as float32": np.full((2, 8, 8), 1e300),
        "another size": np.zeros((2, 5, 5)),
        "complex": np.zeros((2, 8, 8), complex),
        "empty": np.zeros((0, 8, 8)),
    },
    "target": {
        "unknown": "no such class",
        "too large": 10**9,
        "larger": 10**400,
        "negative": -1,
        "fraction": 1.5,
        "NaN": NAN,
        "flag": True,
        "object": _Odd(),
        "three": [0, 1, 2],
        "none": [],
        "fractions": np.array([0.5, 1.5]),
        "a set": {1},
        "bytes": b"ant",
        "complex": 1j,
        "ragged": [[0], [1, 2]],
    },
    "number": {
        "NaN": NAN,
        "infinite": float("inf"),
        "less": float("-inf"),
        "text": "x",
        "None": None,
        "list": [1.0, 2.0, 3.0, 4.0, 5.0],
        "object": _Odd(),
        "huge": 10**400,
        "complex": 1j,
        "flag": True,
        "bytes": b"1",
        "NaN of JAX": np.float32(NAN),
    },
    "count": {
        "0": 0,
        "negative": -1,
        "fraction": 1.5,
        "NaN": NAN,
        "text": "x",
        "None": None,
        "flag": True,
        "2^31": 2**31,
        "huge": 10**400,
        "list": [1],
        "object": _Odd(),
        "infinite": float("inf"),
        "bytes": b"1",
    },
    "key": {
        "None": None,
        "text": "x",
        "fraction": 1.5,
        "2^70": 2**70,
        "flag": True,
        "object": _Odd(),
        "array": np.zeros(3),
        "list": [1, 2],
    },
    "choice": {
        "unknown": "no such choice",
        "number": 3,
        "None": None,
        "array": np.zeros(3),
        "object": _Odd(),
        "list": ["l2"],
        "empty": "",
        "NUL": "l2\0",
    },
    "flag": {
        "text": "yes",
        "number": 1,
        "None": None,
        "array": np.ones(3),
        "object": _Odd(),
        "list": [True],
        "NaN": NAN,
    },
    "function": {"number": 3, "text": "x", "array": np.zeros(3), "list": [len]},
    "path": {
        "number": 3,
        "object": _Odd(),
        "NUL": "bad\0name",
        "list": ["a"],
        "array": np.zeros(3),
        "a file's folder": __file__ + "/inside",
        "bytes": b"x",
        "too long": "a" * 5000,
    },
    "text": {
        "number": 3,
        "None": None,
        "surrogate": "\ud800",
        "object": _Odd(),
        "list": [3],
        "bytes": b"a",
    },
    "size": {
        "0": 0,
        "negative": -3,
        "text": "x",
        "fraction": 1.5,
        "triple": (8, 8, 3),
        "object": _Odd(),
        "NaN": (NAN, 8),
        "huge": 10**400,
        "None": None,
    },
    "shape": {
        "0": (0, 8, 3),
        "negative": (8, -8, 3),
        "text": "x",
        "fraction": (8, 8, 1.5),
        "pair": (8, 8),
        "number": 8,
        "object": _Odd(),
        "huge": (10**400, 8, 3),
    },
    "dataset": {"None": None, "array": np.zeros((2, 8, 8, 3)), "text": "x", "object": _Odd()},
    "marks": {"text": "x", "negative": [-1], "fraction": [0.5], "number": 3, "late": [10**6]},
    "callables": {"number": 3, "text": "x", "list": [3], "object": _Odd(), "texts": ["x"]},
    "odd": {"number": 3, "text": "\ud800", "object": _Odd(), "array": np.zeros(3), "function": len},
}
"""Kinds of arguments, and what is wrong for each; None is right where it is the default."""

KINDS = {
    "model": "model other clip module",
    "images": "images image content first second source pictures start guide examples centre",
    "maps": "maps mask masks",
    "array": "points data reference values activations vector tensor features layout hits segments "
    "tokens exclude",
    "target": "target labels unit",
    "number": "eps step_size scale noise keep weight learning_rate alpha tv confidence overshoot "
    "radius high tolerance rate sigma percentile momentum b1 b2 p negative_weight factor "
    "ratio cosine_power amount most beta about decay diversity initial gamma epsilon fraction "
    "reach compactness tol width ridge penalty epsilons sd fill side spread weight_decay "
    "label_smoothing ema awp",
    "count": "steps samples chunk restarts octaves frames tile binary_search_steps candidates "
    "permutations generations batch_size cells region draws pixels k columns pad jitter grid "
    "facets directions sample window_size queries context every bins eot selection sets count "
    "epochs crops active copies validation crop cutout patch least recipe dilation levels small "
    "small_epochs",
    "key": "key",
    "choice": "norm loss layer method rule kind attack objective colour pooling encoding combine "
    "clean config image version composite index image_kind style_kind split layers schedule",
    "flag": "progress many histogram flip rescale_schedule signed quantize best strict pretrained "
    "decorrelate random_start",
    "function": "callback of attribute draw encode_image encode_text",
    "path": "checkpoint out path folder store",
    "text": "texts name label titles words templates negative",
    "size": "size window stride longest",
    "shape": "shape input_shape",
    "dataset": "dataset real references test",
    "marks": "snapshots numbers",
    "callables": "transforms regularizers post_step optimizer models clips through",
    "odd": "concepts measures others positions palette found baseline players groups position "
    "units sizes shares "
    "augment tokenizer weights partial classes mean std call output variables params primitives "
    "state style style_layers content_layers scales seeds adversary start end names random "
    "vocabulary merges picture row_titles towards where function degrees factors statistics",
}
KIND = {name: kind for kind, names in KINDS.items() for name in names.split()}

OTHERWISE = {
    "attacks.robustness.attack": "choice",
    "attacks.robustness.epsilons": "number",
    "attacks.fool.start": "images",
    "attacks.fool.objective": "choice",
    "attacks.hop_skip_jump.start": "images",
    "attacks.distances.others": "images",
    "analysis.metrics.pointing_game.tolerance": "count",
    "analysis.neighbours.nearest.queries": "images",
    "analysis.neighbours.nearest.exclude": "array",
    "analysis.deconv.centred.signed": "maps",
    "analysis.representations.distances.first": "array",
    "analysis.representations.distances.second": "array",
    "analysis.representations.relative_errors.found": "array",
    "analysis.representations.relative_errors.references": "array",
    "analysis.representations.psnr.first": "array",
    "analysis.representations.psnr.second": "array",
    "analysis.representations.ssim.first": "array",
    "analysis.representations.ssim.second": "array",
    "concepts.factors.nmf.start": "choice",
    "analysis.representations.spread.pictures": "array",
    "concepts.groups.factorize.image": "images",
    "concepts.groups.coloured.image": "images",
    "style.match_histogram.image": "images",
    "style.texture.image": "images",
    "visualization.zoom.image": "images",
    "concepts.groups.coloured.maps": "maps",
    "concepts.groups.factorize.start": "choice",
    "plotting.films.film.frames": "callables",
    "analysis.metrics.spearman.first": "maps",
    "analysis.metrics.spearman.second": "maps",
    "analysis.metrics.structural_similarity.window": "count",
    "analysis.manifold.linear_shift.target": "images",
    "attribution.expected_gradients.data": "images",
    "attribution.superpixels.segments": "count",
    "attribution.lrp.through": "odd",
    "attribution.lrp.composite": "choice",
    "attribution.integrated_gradients.rule": "choice",
    "analysis.metrics.faithfulness_correlation.size": "count",
    "clip.save.about": "odd",
    "clip.save.folder": "path",
    "clip.untrained.config": "odd",
    "clip.load.config": "odd",
    "clip.load.name_or_path": "path",
    "clip.invert.image": "choice",
    "clip.invert.start": "images",
    "clip.invert.tv": "number",
    "clip.untrained.words": "odd",
    "concepts.channels.width": "count",
    "images.CPPN.layers": "count",
    "images.CPPN.width": "count",
    "concepts.train_sae.width": "count",
    "concepts.tcav.random": "images",
    "concepts.tcav.examples": "images",
    "concepts.label.pictures": "array",
    "concepts.report.name": "function",
    "concepts.compare.others": "odd",
    "concepts.relevance.count": "count",
    "data.Dataset.images": "odd",
    "data.Dataset.labels": "odd",
    "data.Dataset.classes": "odd",
    "faithfulness.objective": "odd",
    "faithfulness.real": "images",
    "images.estimate.images": "odd",
    "interpolate.first": "images",
    "load.name_or_path": "path",
    "load.pretrained": "flag",
    "card.name": "path",
    "match.target": "images",
    "match.start": "images",
    "objectives.gram.target": "array",
    "objectives.match.target": "array",
    "objectives.interpolate.start": "odd",
    "objectives.interpolate.end": "odd",
    "objectives.function.call": "function",
    "objectives.guide.features": "array",
    "objectives.gram_cosine.activations": "array",
    "objectives.gram_matrix.activations": "array",
    "plotting.grid.alpha": "flag",
    "plotting.grid.scale": "count",
    "plotting.spritemap.alpha": "flag",
    "plotting.overlay.style": "choice",
    "regularizers.distance.reference": "images",
    "style.match_histogram.reference": "images",
    "style.texture.size": "size",
    "style.transfer.style": "images",
    "style.transfer.start": "images",
    "synthesis.super_resolve.factor": "count",
    "synthesis.inpaint.mask": "maps",
    "transforms.RandomCrop.centre": "number",
    "transforms.lucid.size": "count",
    "transforms.maco.size": "count",
    "train.recipe": "odd",
    "train.model": "model",
    "training.Recipe.beta": "number",
    "visualization.zoom.target": "target",
    "visualize.image": "choice",
    "visualize.start": "images",
}
"""Kinds where a name means something else than elsewhere."""

FAIR = {
    ("style.match_histogram", "image", "5 channels"): "which of two does not fit is open",
    ("concepts.groups.factorize", "classes", "number"): "one class",
    ("concepts.groups.coloured", "maps", "another size"): "they are enlarged",
    ("concepts.groups.coloured", "image", "5 channels"): "any number",
    ("units", "number"): "one unit",
    ("signed", "another size"): "any size",
    ("clip.load", "tokenizer", "text"): "the file is named",
    ("attacks.distances", "images", "255"): "a distance in these units",
    ("attacks.distances", "others", "255"): "likewise",
    ("analysis.metrics.alignment", "images", "255"): "likewise",
    ("analysis.metrics.alignment", "images", "uint8"): "likewise",
    ("clip.load", "name_or_path", "a file's folder"): "a file that is missing is named",
    ("crop", "0"): "none",
    ("crops", "0"): "none",
    ("cutout", "0"): "none",
    ("small", "0"): "none",
    ("small_epochs", "0"): "none",
    ("validation", "0"): "none",
    ("tolerance", "0"): "none",
    ("mean", "array"): "one number a channel",
    ("output", "function"): "of what the network gives",
    ("params", "number"): "a pytree of arrays",
    ("params", "array"): "likewise",
    ("function", "function"): "what it does is known when it is called",
    ("numbers", "number"): "one concept",
    ("maps", "another size"): "which of two do not fit is open",
    ("first", "another size"): "likewise",
    ("maps", "empty"): "likewise",
    ("images", "rank 2"): "likewise",
    ("images", "empty"): "likewise",
    ("players", "number"): "squares of three pixels, or three players",
    ("dilation", "0"): "no dilation",
    ("pixels", "0"): "no move, no border",
    ("layer", "NUL"): "which layers there are is known when a model is",
    ("objectives.function", "layers", "unknown"): "likewise",
    ("objectives.function", "layers", "list"): "likewise",
    ("objectives.function", "layers", "empty"): "likewise",
    ("objectives.function", "layers", "NUL"): "likewise",
    ("unit", "negative"): "how many units a layer has is known when a model is",
    ("unit", "too large"): "likewise",
    ("unit", "three"): "three units",
    ("towards", "array"): "a colour",
    ("degrees", "array"): "three angles",
    ("factors", "array"): "three factors",
    ("radius", "infinite"): "all of [0, 1]",
    ("radius", "list"): "one for each image",
    ("radius", "None"): "what JAX puts into a pytree that it takes apart",
    ("radius", "object"): "likewise",
    ("radius", "flag"): "likewise",
    ("alpha", "None"): "no transparency",
    ("pad", "0"): "no border",
    ("jitter", "0"): "no jitter",
    ("images", "5 channels"): "pictures have any number of channels",
    ("images", "rank 5"): "rows and columns of pictures",
    ("target", "three"): "three classes, where images do not say how many",
    ("epsilons", "list"): "five radii",
    ("ratio", "list"): "five ratios",
    ("cosine_power", "list"): "five powers",
    ("layer", "unknown"): "which layers there are is known when a model is",
    ("layer", "empty"): "likewise",
    ("eps", "infinite"): "all of [0, 1]",
    ("vector", "NaN"): "refused then, too",
}
"""What may be taken, and why."""

UNKNOWN = {
    "analysis.representations.ssim": "of pictures of fewer than 11 pixels",
    "attribution.kernel_shap": "standard errors",
    "attribution.lime": "standard errors",
    "analysis.metrics.sanity_check": "how similar maps are of which one is constant",
    "style.texture": "how far it is from a content, which there is none of",
    "concepts.measure": "the purity of what is on in too few images",
    "faithfulness": "how another network sees it, where none is given",
    "invert_layers": "how pictures differ, where there is but one",
    "attacks.robustness": "the radius that fools an image which none does",
}
"""Functions whose results hold numbers that are not finite, and for what."""


def kind(title: str, argument: str) -> str:
    """The kind of an argument; KeyError where nobody said it."""
    return OTHERWISE.get(f"{title}.{argument}") or KIND[argument]
