"""A CLIP as a pytree: an image tower that is a `Model`, a text tower, and what compares them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, engine, gate, struct
from rvis.clip.tokenizer import Tokenizer, listed
from rvis.clip.towers import Config, TextTower
from rvis.objectives.base import Activations, Objective, digests
from rvis.types import Apply, Array, ArrayLike, Model, PyTree, Relu, Tap, identity, on_device


@struct.dataclass
class CLIP:
    """Two towers that give pictures and texts embeddings to compare.

    Attributes:
      image: the image tower, a `Model` whose output is the embedding (n, projection): it works
        wherever a model does, `rvis.visualize` and `rvis.attribution` included.
      text_params: weights of the text tower.
      logit_scale: log of what cosines are multiplied by.
      config: the sizes.
      tokenizer: texts to token numbers; None where no vocabulary is known.
      name: what to call it.

    Example:
      >>> from rvis import clip
      >>> small = clip.untrained(clip.SMALL, words=("a", "red", "circle"))
      >>> small.image.input_shape, clip.encode_text(small, "a red circle").shape
      ((48, 48, 3), (64,))
    """

    image: Model
    text_params: PyTree
    logit_scale: Array
    config: Config = struct.static()
    tokenizer: Tokenizer | None = struct.static(default=None)
    name: str = struct.static(default="clip")

    @property
    def state(self) -> PyTree:
        """The variables of both towers as one tree, {"params": …}."""
        return {
            "params": {
                **self.image.params["params"],
                **self.text_params["params"],
                "logit_scale": self.logit_scale,
            }
        }


def unit(x: Array) -> Array:
    """Vectors along the last axis at length 1; one of zeros stays one, with a gradient of zeros."""
    squares = jnp.square(x).sum(-1, keepdims=True)
    return x * jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1)), 0)


_SIDE_BY_SIDE = 8
"""Rows that a transformer reads at once on a CPU: one alone would wait for the weights."""


@dataclasses.dataclass(frozen=True)
class _Read:
    """The text tower as a model's `apply`: rows of tokens in the place of images."""

    config: Config

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        found = TextTower(self.config).apply(params, images, tap=tap)
        return cast(Array, found)


def _embedding(model: Model, row: Array) -> Array:
    return unit(model.apply(model.params, row[None])[0])


@gate.public
def encode_text(
    clip: CLIP, texts: str | Sequence[str], *, templates: Sequence[str] = ("{}",)
) -> np.ndarray:
    """Embeddings of texts, of length 1.

    Args:
      clip: any CLIP with a tokenizer.
      texts: one text or several.
      templates: sentences in whose {} a text is put; their embeddings are averaged and brought to
        length 1 again (Radford 2021, section 3.1.4).

    Returns:
      (m, projection) float32, or (projection,) for one text.

    Raises:
      TypeError, ValueError: naming `texts`, `templates`, or `clip`, where it has no tokenizer.

    Example:
      >>> import numpy as np
      >>> from rvis import clip
      >>> small = clip.untrained(clip.SMALL, words=("a", "red", "circle"))
      >>> vectors = clip.encode_text(small, ["a circle", "red"])
      >>> np.allclose((vectors**2).sum(1), 1, atol=1e-5)
      True

    Reference: Radford et al. 2021, "Learning transferable visual models from natural language
      supervision", section 2.4.
    """
    if clip.tokenizer is None:
        raise ValueError(
            f"clip: {clip.name} knows no vocabulary; load it with tokenizer=PATH of one"
        )
    several, sentences = listed(texts), listed(templates, "templates")
    for sentence in sentences:
        if "{}" not in sentence:
            raise ValueError(f"templates: a place {{}} for the text was expected in {sentence!r}")
    filled = [sentence.replace("{}", text) for text in several for sentence in sentences]
    vectors = encode_tokens(clip, clip.tokenizer(filled))
    vectors = np.asarray(unit(vectors.reshape(len(several), len(sentences), -1).mean(1)))
    return vectors[0] if isinstance(texts, str) else vectors


@gate.public
def encode_tokens(clip: CLIP, tokens: ArrayLike) -> np.ndarray:
    """Embeddings (n, projection) of rows of token numbers (n, context), of length 1.

    Raises:
      TypeError, ValueError: naming `tokens`: numbers outside the vocabulary, or another length.

    Example:
      >>> import numpy as np
      >>> from rvis import clip
      >>> small = clip.untrained(clip.SMALL, words=("a", "red", "circle"))
      >>> clip.encode_tokens(small, np.zeros((2, small.config.context), int)).shape
      (2, 64)
    """
    config = clip.config
    numbers = checks.integers("tokens", tokens, high=config.vocabulary, what="the vocabulary")
    if numbers.ndim != 2 or numbers.shape[1] != config.context or not len(numbers):
        raise ValueError(f"tokens: (n, {config.context}) was expected, given {numbers.shape}")
    tower = Model(clip.text_params, _Read(config), (), (1, config.context, 1))
    return engine.apply(_embedding, tower, numbers, pixels=config.context, widest=_SIDE_BY_SIDE)


@gate.public
def encode_image(clip: CLIP, images: ArrayLike) -> np.ndarray:
    """Embeddings of images, of length 1.

    Args:
      clip: any CLIP.
      images: (n, H, W, 3) or (H, W, 3), float32 in [0, 1], of the tower's own size
        (`clip.image.input_shape`) or any other that is a whole number of patches.

    Returns:
      (n, projection) float32.

    Raises:
      TypeError, ValueError: naming `images`.

    Example:
      >>> import numpy as np
      >>> from rvis import clip
      >>> small = clip.untrained(clip.SMALL, words=("a", "red", "circle"))
      >>> clip.encode_image(small, np.zeros((2, 48, 48, 3), np.float32)).shape
      (2, 64)

    Reference: Radford et al. 2021, section 2.3.
    """
    batch = checks.images("images", images, channels=3)
    patch = clip.config.patch
    if any(side % patch for side in batch.shape[1:3]):
        raise ValueError(
            f"images: sides that are multiples of {patch} were expected, given {batch.shape[1:3]}"
        )
    patches = math.prod(batch.shape[1:3]) // patch**2
    return engine.apply(
        _embedding, clip.image, np.asarray(batch), pixels=patches, widest=_SIDE_BY_SIDE
    )


@dataclasses.dataclass(frozen=True)
class Titles:
    """Texts that go along with an objective without being part of what is compiled.

    They equal one another, so that other texts do not trace anew.
    """

    texts: tuple[str, ...] = dataclasses.field(default=(), compare=False)


@struct.dataclass
class Similarity(Objective):
    """See `similarity`."""

    layer: str = struct.static()
    vector: Array
    about: Titles = struct.static(default=Titles(), repr=False)

    event_ranks: ClassVar[Mapping[str, int]] = {"vector": 1}

    def identities(self) -> np.ndarray:
        return digests(self.vector, 1)

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def __call__(self, activations: Activations) -> Array:
        return (unit(activations[self.layer]) @ unit(self.vector)).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        checks.choice("layer", self.layer, shapes)
        width = shapes[self.layer][-1]
        if np.shape(self.vector)[-1] != width:
            raise ValueError(
                f"vector: {width} entries were expected, as {self.layer!r} has, given "
                f"{np.shape(self.vector)[-1]}"
            )
        checks.finite("vector", self.vector)

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        titles = np.empty(self.batch_shape, object)
        known = np.asarray(self.about.texts or "a text", object)
        titles[...] = known if known.shape == self.batch_shape else known.ravel()[0]
        return titles


@gate.public
def similarity(
    clip: CLIP,
    texts: str | Sequence[str],
    *,
    layer: str = "embedding",
    templates: Sequence[str] = ("{}",),
) -> Similarity:
    """The cosine of an image's embedding with a text's: a text as an objective of `clip.image`.

    It adds, subtracts and scales as all objectives do, so that negative texts are
    `similarity(clip, wanted) - 0.5 * similarity(clip, unwanted)`, and serves `rvis.visualize` and
    every attribution as the direction to climb or to explain.

    Args:
      clip: any CLIP.
      texts: one text, or several for as many objectives.
      layer: whose activation is the embedding: "embedding", or that of a tower of `ensemble`.
      templates: see `encode_text`.

    Raises:
      TypeError, ValueError: naming `texts` or `templates`.

    Example:
      >>> import numpy as np
      >>> import rvis
      >>> from rvis import clip
      >>> small = clip.untrained(clip.SMALL, words=("a", "red", "circle"))
      >>> objective = clip.similarity(small, "a red circle") - clip.similarity(small, "red")
      >>> image = np.full((48, 48, 3), 0.5, np.float32)
      >>> rvis.attribution.gradient(small.image, image, objective).maps.shape
      (48, 48, 3)

    Reference: Radford et al. 2021, section 2.3, figure 3.
    """
    vectors = encode_text(clip, texts, templates=templates)
    return Similarity(layer, on_device(vectors), Titles(tuple(listed(texts))))


@dataclasses.dataclass(frozen=True)
class ZeroShot:
    """The `apply` of `classifier`: scaled cosines with the embeddings of texts."""

    tower: Apply
    takes_relu: bool = False

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """Logits (n, texts)."""
        x = self.tower(params["image"], images, tap=tap, relu=relu)
        return jnp.exp(params["logit_scale"]) * unit(x) @ params["texts"].T


@gate.public
def classifier(
    clip: CLIP, texts: Sequence[str], *, templates: Sequence[str] = ("{}",), name: str | None = None
) -> Model:
    """A zero-shot classifier: a `Model` whose logits are scaled cosines with texts.

    Args:
      clip: any CLIP.
      texts: the classes.
      templates: see `encode_text`.
      name: what to call it; the CLIP's name by default.

    Returns:
      A model with the image tower's layers and one class a text.

    Raises:
      TypeError, ValueError: naming `texts` or `templates`.

    Example:
      >>> import numpy as np
      >>> import rvis
      >>> from rvis import clip
      >>> small = clip.untrained(clip.SMALL, words=("a", "red", "circle"))
      >>> model = clip.classifier(small, ["circle", "red"], templates=["a {}"])
      >>> image = np.full((48, 48, 3), 0.5, np.float32)
      >>> rvis.attribution.grad_cam(model, image, "circle").raw.shape
      (6, 6)

    Reference: Radford et al. 2021, section 3.1.2.
    """
    several = tuple(listed(texts))
    params = {
        "image": clip.image.params,
        "texts": on_device(encode_text(clip, several, templates=templates)),
        "logit_scale": clip.logit_scale,
    }
    return Model(
        params,
        ZeroShot(clip.image.apply),
        clip.image.layers,
        clip.image.input_shape,
        several,
        clip.name if name is None else name,
    )


@dataclasses.dataclass(frozen=True)
class Towers:
    """The `apply` of `ensemble`: every tower sees the image at its own size.

    Attributes:
      applies: one a tower.
      sizes: (H, W) of what each tower sees.
      copies: how many pictures an image is a column of; their embeddings are as many rows.
    """

    applies: tuple[Apply, ...]
    sizes: tuple[tuple[int, int], ...]
    copies: int = 1
    takes_relu: bool = False

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """All embeddings beside one another."""
        n, height, *rest = images.shape
        images = images.reshape(n * self.copies, height // self.copies, *rest)
        embeddings = []
        for i, (apply, size) in enumerate(zip(self.applies, self.sizes, strict=True)):
            x = images
            if x.shape[1:3] != size:
                x = jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "linear")

            def prefixed(name: str, activation: Array, i: int = i) -> Array:
                return tap(f"{i}.{name}", activation)

            embeddings.append(apply(params[i], x, tap=prefixed, relu=relu))
        return jnp.concatenate(embeddings, -1)


@gate.public
def ensemble(clips: CLIP | Sequence[CLIP]) -> Model:
    """Several image towers as one model, each of which sees the image at its own size.

    Args:
      clips: one CLIP or several, of any sizes.

    Returns:
      A model whose layers are those of tower i with `i.` in front, and whose input is as large as
      the largest tower's. It takes images of any size.

    Raises:
      TypeError: naming `clips`, for anything but CLIPs.

    Example:
      >>> from rvis import clip
      >>> small = clip.untrained(clip.SMALL, words=("a", "red", "circle"))
      >>> clip.ensemble([small, small]).layers[-1]
      '1.embedding'
    """
    several = (clips,) if isinstance(clips, CLIP) else tuple(clips)
    if not several or not all(isinstance(clip, CLIP) for clip in several):
        raise TypeError(f"clips: a CLIP or several were expected, given {clips!r}")
    models = [clip.image for clip in several]
    return Model(
        tuple(model.params for model in models),
        Towers(
            tuple(model.apply for model in models),
            tuple(model.input_shape[:2] for model in models),
        ),
        tuple(f"{i}.{layer}" for i, model in enumerate(models) for layer in model.layers),
        max((model.input_shape for model in models), key=lambda shape: shape[0]),
        (),
        " + ".join(clip.name for clip in several),
    )
