"""The mean of several networks' weights, and the statistics computed for it."""

import jax
import numpy as np
import pytest

import rvis
from rvis.models import architectures
from rvis.training import model_soup
from tests import toys

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)


def small(key: int = 0, widths: tuple[int, ...] = (4, 8)) -> rvis.Model:
    """An untrained residual network of two stages."""
    config = {"stages": (1, 1), "widths": widths, "classes": 3}
    return architectures.build(
        "cifar_resnet",
        weights="random",
        config=config,
        key=key,
        input_shape=(8, 8, 3),
        classes=tuple("abc"),
    )


def test_weights_are_the_mean():
    models = [small(0), small(1), small(2)]
    got = model_soup(models, IMAGES, batch_size=8).params["params"]
    leaves = zip(
        jax.tree.leaves(got),
        *(jax.tree.leaves(m.params["params"]) for m in models),
        strict=True,
    )
    for mean, *each in leaves:
        np.testing.assert_allclose(mean, np.mean(each, 0), rtol=1e-5, atol=1e-7)


def test_statistics_are_those_of_the_stem_in_float64():
    model = small()
    got = model_soup([model], IMAGES, crop=0, flip=False, batch_size=24).params["batch_stats"][
        "bn1"
    ]
    maps = rvis.record(model, IMAGES.astype(np.float32) / 255, ("conv1",))["conv1"]
    maps = np.asarray(maps, np.float64)
    np.testing.assert_allclose(got["mean"], maps.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["var"], maps.var((0, 1, 2)), rtol=1e-4)


def test_statistics_are_those_of_changed_images():
    plain, shifted = (
        model_soup([small()], IMAGES, crop=crop, flip=False, batch_size=24).params["batch_stats"][
            "bn1"
        ]
        for crop in (0, 4)
    )
    # The data are bright noise: black borders change every mean.
    assert (np.abs(plain["mean"] - shifted["mean"]) > 1e-3).all()


def test_sorted_images_are_shuffled():
    dark, bright = (np.full((8, 8, 8, 3), value, np.uint8) for value in (50, 200))
    got = model_soup([small()], np.concatenate([dark, bright]), crop=0, batch_size=8)
    variance = got.params["batch_stats"]["bn1"]["var"]
    # Batches of one shade each would have variance at the borders alone.
    apart = [model_soup([small()], part, crop=0, batch_size=8) for part in (dark, bright)]
    alone = np.mean([m.params["batch_stats"]["bn1"]["var"] for m in apart], 0)
    assert (variance > 1.2 * alone).any()


def test_old_statistics_do_not_matter():
    model = small()
    other = model.replace(
        params={
            **model.params,
            "batch_stats": jax.tree.map(lambda a: a + 3, model.params["batch_stats"]),
        }
    )
    a, b = (model_soup([m], IMAGES, batch_size=8).params["batch_stats"] for m in (model, other))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_network_without_statistics_is_averaged_too():
    models = [rvis.load("mnist_cnn", weights="random", key=key) for key in (0, 1)]
    got = model_soup(models, np.zeros((2, 28, 28, 1), np.uint8), batch_size=2)
    bias = [m.params["params"]["fc2"]["kernel"] for m in (got, *models)]
    np.testing.assert_allclose(bias[0], (bias[1] + bias[2]) / 2, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("models", "images", "batch_size", "error", "match"),
    [
        ([], IMAGES, 8, ValueError, "models: at least one"),
        ([small(), small(widths=(4, 4))], IMAGES, 8, ValueError, "models: .*weights alone"),
        ([toys.pointwise()], IMAGES, 8, ValueError, "models: .*cannot be trained"),
        ([small()], IMAGES / 255, 8, TypeError, "images: uint8"),
        ([small()], IMAGES[:, :4], 8, ValueError, r"images: \(n, 8, 8, 3\)"),
        ([small()], IMAGES, 25, ValueError, "batch_size: at most 24"),
        ([small()], IMAGES, 0, ValueError, "batch_size: at least 1"),
    ],
)
def test_what_does_not_fit_is_named(models, images, batch_size, error, match):
    with pytest.raises(error, match=match):
        model_soup(models, images, batch_size=batch_size)
