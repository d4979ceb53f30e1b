"""The reference by topic: every public name of rvis on one page, for mkdocstrings to fill."""

from __future__ import annotations

import importlib
import inspect
import types

TOPICS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "models": (
        "Networks",
        "Networks as pytrees: shipped, public, or your own; layers, taps, and activations.",
        ("rvis.models", "rvis.types"),
    ),
    "visualization": (
        "Feature visualization",
        "Pictures of units, whole layers, DeepDream, activation grids and atlases.",
        ("rvis.visualization", "rvis.analysis.faithful"),
    ),
    "objectives": (
        "Objectives",
        "What is to be raised: units, directions, sums of them, any function of activations.",
        ("rvis.objectives",),
    ),
    "images": (
        "Images and random views",
        "How a picture is parameterized, and the random views in which a network sees it.",
        ("rvis.images", "rvis.transforms"),
    ),
    "climbing": (
        "Climbing",
        "Optimizers, penalties, projections, and maps of the iterate.",
        ("rvis.optimizers", "rvis.regularizers", "rvis.projections", "rvis.post_step"),
    ),
    "attribution": (
        "Attribution",
        "Which pixels caused a score, and whether a map is any good.",
        ("rvis.attribution", "rvis.analysis.metrics", "rvis.analysis.similarity"),
    ),
    "attacks": (
        "Attacks and evolution",
        "Changes that fool a network, AutoAttack, certificates, fooling images, MAP-Elites.",
        ("rvis.attacks", "rvis.evolve"),
    ),
    "inversion": (
        "Inversion and matching",
        "What a layer keeps, and which images are the same to it.",
        ("rvis.inversion", "rvis.analysis.representations"),
    ),
    "synthesis": (
        "Synthesis, style and CLIP",
        "Images made and changed by one classifier, by a style, or from a sentence.",
        ("rvis.synthesis", "rvis.style", "rvis.clip"),
    ),
    "concepts": (
        "Concepts and data",
        "Concepts of layers, top patches, neighbours, receptive fields, the geometry of data.",
        ("rvis.concepts", "rvis.analysis"),
    ),
    "training": (
        "Training and data",
        "Standard and adversarial training, measuring a network, and reading data sets.",
        ("rvis.training", "rvis.data"),
    ),
    "plotting": (
        "Results, grids, films and pages",
        "What every function gives back, and how pictures are put together.",
        ("rvis.results", "rvis.plotting"),
    ),
    "engine": (
        "The engine",
        "The one loop that runs every algorithm.",
        ("rvis.engine",),
    ),
}
"""{page: (title, what it holds, modules)}: a name stands where the nearest module above its
definition is, so that the longest of those that fit decides."""

EXTRA = ("rvis.models.inputs", "rvis.models.pools")
"""Modules that guides use and no `__all__` names."""


def entries() -> dict[str, str]:
    """What rvis offers: {full name: the name under which it is documented}.

    Public is what `rvis.__all__` names; of a module named there, what its own `__all__` names or,
    without one, what it defines under names that do not begin with an underscore. What several
    modules offer is documented once: in `rvis`, else in the module nearest to its definition.

    Example:
      >>> from scripts.docs import api
      >>> api.entries()["rvis.visualization.deepdream"]
      'rvis.deepdream'
    """
    things = {
        f"{module}.{name}": inspect.unwrap(value) if callable(value) else value
        for module, where in modules().items()
        for name, value in _names(where).items()
    }

    def nearness(full: str) -> tuple[bool, bool, int]:
        module = full.rpartition(".")[0]
        near = str(getattr(things[full], "__module__", "")).startswith(module)
        return module == "rvis", near, len(module)

    homes: dict[int, str] = {}
    for full in sorted(things, key=nearness, reverse=True):
        homes.setdefault(id(things[full]), full)
    documented = (types.FunctionType, type)
    return {
        full: homes[id(thing)] if isinstance(thing, documented) else full
        for full, thing in things.items()
    }


def modules() -> dict[str, types.ModuleType]:
    """{name: module} of rvis, its public rooms, and what those name.

    Example:
      >>> from scripts.docs import api
      >>> "rvis.analysis.manifold" in api.modules()
      True
    """
    rvis = importlib.import_module("rvis")
    found = {"rvis": rvis, **{name: importlib.import_module(name) for name in EXTRA}}
    for name in rvis.__all__:
        inner = getattr(rvis, name)
        if inspect.ismodule(inner):
            found[f"rvis.{name}"] = inner
            for below in getattr(inner, "__all__", ()):
                if inspect.ismodule(getattr(inner, below)):
                    found[f"rvis.{name}.{below}"] = getattr(inner, below)
    return dict(sorted(found.items()))


def _names(module: types.ModuleType) -> dict[str, object]:
    public = getattr(module, "__all__", None)
    if public is None:
        public = [
            name
            for name, thing in vars(module).items()
            if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__
        ]
    things = {name: getattr(module, name) for name in sorted(public, key=str.lower)}
    return {name: thing for name, thing in things.items() if not inspect.ismodule(thing)}


def topic(full: str) -> str:
    """The page on which a name is documented.

    Raises:
      KeyError: naming it, where no topic has its module.

    Example:
      >>> from scripts.docs import api
      >>> api.topic("rvis.visualize"), api.topic("rvis.analysis.metrics.deletion")
      ('visualization', 'attribution')
    """
    module, _, name = full.rpartition(".")
    if module == "rvis":
        thing = getattr(modules()["rvis"], name)
        module = getattr(inspect.unwrap(thing), "__module__", module)
    fitting = {
        above: page
        for page, (_, _, places) in TOPICS.items()
        for above in places
        if f"{module}.".startswith(f"{above}.")
    }
    if not fitting:
        raise KeyError(f"{full}: none of TOPICS has {module}")
    return fitting[max(fitting, key=len)]


def _directive(full: str) -> str:
    """What mkdocstrings fills: by where the thing is defined, as modules have functions' names."""
    module, _, name = full.rpartition(".")
    found = getattr(modules()[module], name)
    thing = inspect.unwrap(found) if callable(found) else found
    path = full
    if isinstance(thing, types.FunctionType | type):
        path = f"{thing.__module__}.{thing.__qualname__}"
    anchor = "" if path == full else f"[](){{ #{full} }}\n\n"
    options = f"    options:\n      heading: {full}\n      toc_label: {name}"
    return f"{anchor}::: {path}\n{options}"


def pages() -> dict[str, str]:
    """The pages as Markdown: {"api/attacks.md": text}, with a directive for every name.

    Example:
      >>> from scripts.docs import api
      >>> "heading: rvis.attacks.pgd" in api.pages()["api/attacks.md"]
      True
    """
    known = modules()
    groups: dict[str, dict[str, list[str]]] = {page: {} for page in TOPICS}
    for full in sorted(set(entries().values()), key=lambda name: name.lower()):
        groups[topic(full)].setdefault(full.rpartition(".")[0], []).append(full)
    written, rows = {}, []
    for page, (title, about, _) in TOPICS.items():
        parts = [f"# {title}", about]
        for module, names in sorted(groups[page].items()):
            summary = (known[module].__doc__ or "").strip().splitlines()[0]
            parts += [f"## {module}", *([] if module == "rvis" else [summary])]
            parts += map(_directive, names)
        written[f"api/{page}.md"] = "\n\n".join(parts) + "\n"
        count = sum(map(len, groups[page].values()))
        rows.append(f"| [{title}]({page}.md) | {about} | {count} |")
    index = (
        "# API by topic\n\nEvery public name stands on one page, with the shapes and ranges of its "
        "arguments, what it raises, an example that the tests run, and its source.\n\n"
        "| topic | what it holds | names |\n|---|---|---|\n"
    )
    return {"api/index.md": index + "\n".join(rows) + "\n", **written}
