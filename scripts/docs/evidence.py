"""Tables of the site, made from the JSON under scripts/results and from the networks' cards."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "scripts" / "results"
TOPICS = {
    "networks": "Networks",
    "visualization": "Feature visualization",
    "attribution": "Attribution",
    "concepts": "Concepts",
    "attacks": "Attacks",
    "images": "Making and inverting images",
    "speed": "Speed",
}
"""{topic of a record: its heading}."""
BENCHES = {
    "cpu_bare": ("A gradient of a network", "bare"),
    "cpu_step_attacks": ("A step of a picture, and attacks", "step attacks"),
    "cpu_sweep_dream_attribution": ("Sweeps, DeepDream and attribution", "sweep dream attribution"),
    "cpu_shapley": ("Shapley values", "shapley"),
}
"""{file: (title, groups of the benchmark)}."""


def table(columns: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    r"""A Markdown table.

    Example:
      >>> print(table(["a", "b"], [[1, "x|y"]]))
      | a | b |
      |---|---|
      | 1 | x\|y |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    cells = [[str(cell).replace("|", r"\|") for cell in line] for line in lines]
    text = "\n".join(f"| {' | '.join(line)} |" for line in cells)
    return text.replace(f"|{' --- |' * len(columns)}", f"|{'---|' * len(columns)}", 1)


def load(name: str) -> Any:
    """A file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def commands(lines: Sequence[str]) -> str:
    """What makes the figures again."""
    return "```bash\n" + "\n".join(lines) + "\n```"


def recorded() -> dict[str, list[str]]:
    """What earlier runs printed, {topic: Markdown of each}."""
    sections: dict[str, list[str]] = {topic: [] for topic in TOPICS}
    for record in load("recorded")["records"]:
        parts = [f"### {record['title']}", commands(record["commands"])]
        for part in record["parts"]:
            if isinstance(part, str):
                parts.append(part)
            elif "picture" in part:
                parts.append(f"![{part['alt']}](pictures/{part['picture']})")
            else:
                parts.append(table(part["columns"], part["rows"]))
        sections[record["topic"]].append("\n\n".join(parts))
    return sections


def bench(name: str) -> str:
    """Medians of a benchmark: milliseconds a call, and rvis's time over each peer's."""
    title, groups = BENCHES[name]
    found = load(name)
    rows = []
    for row, sides in found["rows"].items():
        times = {side: 1e3 * statistics.median(about["seconds"]) for side, about in sides.items()}
        ours = times.pop("rvis")
        rounds = len(sides["rvis"]["seconds"])
        peers = "; ".join(f"{side} {time:.4g} ({ours / time:.2f})" for side, time in times.items())
        rows.append([row, f"{ours:.4g}", peers, rounds])
    versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    about = (
        f"Medians of all rounds, {found['device']}, {found['cores']} cores, {found['date']}, "
        f"Python {found['python']}, {versions}. In parentheses, rvis's time over the peer's."
    )
    head = ["call", "rvis, ms", "peers, ms", "rounds"]
    command = commands([f"python scripts/bench.py {groups} --data DATA --json results.json"])
    return "\n\n".join([f"### {title}", command, about, table(head, rows)])


def recipes() -> str:
    """Recipes of pictures, judged by real images."""
    found = load("recipes")
    figures = ("× strongest real", "above all real", "own unit most", "fine energy")
    rows = [[name, *(f"{row[figure]:.3g}" for figure in figures)] for name, row in found.items()]
    about = (
        "How many times as much as the strongest real image the median picture excites its "
        "channel, the shares of pictures above all real images and that raise their own unit "
        "most, and the "
        "share of energy above a quarter of a cycle a pixel."
    )
    command = commands(["python scripts/recipes.py alexnet:relu5 --units 8 --steps 64"])
    return "\n\n".join(["### Recipes", command, about, table(["recipe", *figures], rows)])


def kernels() -> str:
    """What the CPU's own operations gain, by version of jaxlib."""
    found = load("kernels")
    names = sorted({row["kernel"] for about in found.values() for row in about["rows"]})
    rows = []
    for name in names:
        line = [f"`{name}`" if "." in name else name]
        for about in found.values():
            gains = [row["ratio"] for row in about["rows"] if row["kernel"] == name]
            line.append(f"{min(gains):.2f} to {max(gains):.2f} ({len(gains)})" if gains else "–")
        rows.append(line)
    return "\n\n".join(
        [
            "### Kernels",
            commands(["python scripts/bench/kernels.py"]),
            "How many times as fast as the stock operation, smallest to largest (cases), on "
            f"{next(iter(found.values()))['cores']} cores; which of them are used, each with the "
            "cases that decide it, stands in `rvis/kernels`.",
            table(["kernel", *(f"jaxlib {version}" for version in found)], rows),
        ]
    )


def concepts() -> str:
    """Sparse autoencoders of layers, and TCAV."""
    found = load("concepts")
    rows = []
    for each in found["autoencoders"]:
        low, high = each["interval"]
        rows.append(
            [
                f"`{each['model']}`, `{each['layer']}`",
                f"{each['images']:,}",
                each["latents"],
                f"{each['explained']:.3f}",
                f"{each['active']:.0f}",
                f"{each['purity of latents']:.3f}, {each['purity of channels']:.3f}",
                f"{each['difference']:.3f} [{low:.3f}, {high:.3f}]",
                f"{each['correlation']:.3f}" if "correlation" in each else "–",
                f"{each['processor seconds']:.0f}",
            ]
        )
    names = [
        "network, layer",
        "images",
        "latents",
        "explained",
        "on at a place",
        "purity: latents, channels",
        "difference, 95 % interval",
        "effects by gradient and ablation, rank correlation",
        "processor, s",
    ]
    tested = found["tcav"]
    asked = [
        [what, *(f"{figure:.3g}" if figure else "< 1e-300" for figure in each.values())]
        for what, each in tested.items()
        if isinstance(each, dict)
    ]
    head = ["drawn", *next(each for each in tested.values() if isinstance(each, dict))]
    return "\n\n".join(
        [
            "### Autoencoders and TCAV",
            commands(["python scripts/concepts.py DATA --photos FOLDER --json concepts.json"]),
            "Sparse autoencoders (TopK) on all places of a layer, on two cores. They explain the "
            "layer, but their top nine images are no purer in classes than the channels'.",
            table(names, rows),
            f"TCAV at `{tested['layer']}` of `{tested['model']}`, {tested['sets']} random sets: "
            "drawn stripes against drawn dots and noise, views of one photograph a class. "
            "`sensitivity` is a mean cosine, `of chance` that of random directions.",
            table(head, asked),
        ]
    )


def crashes() -> str:
    """Runs that were killed and called again."""
    rows = [
        [f"`{row['name']}`", row["kills"], "yes" if row["same"] else "no"]
        for row in load("crashes")
    ]
    about = "Each run is killed at random moments and called again until it ends."
    head = ["function", "kills", "the same bits as an uninterrupted run"]
    command = commands(["python scripts/crash_check.py"])
    return "\n\n".join(["### Runs killed on the way", command, about, table(head, rows)])


def mutants() -> str:
    """Wrong implementations, and the tests that noticed."""
    found = load("mutants")
    rows = [[f"`{row['file']}`", row["name"], f"`{row.get('by', '–')}`"] for row in found]
    killed = sum(row["outcome"] == "killed" for row in found)
    about = (
        "Each is put into the code by itself, and its tests are run without any data set: "
        f"{killed} of {len(found)} are noticed. What is put where stands in `scripts/mutants.toml`."
    )
    command = commands(["python scripts/mutants.py --out scripts/results/mutants.json"])
    head = ["file", "what is wrong", "noticed by"]
    return "\n\n".join(["### Wrong implementations", command, about, table(head, rows)])


def page() -> str:
    """Every figure of the documentation, each below its command."""
    sections = recorded()
    sections["visualization"].append(recipes())
    sections["concepts"].insert(0, concepts())
    sections["speed"] += [*map(bench, BENCHES), kernels(), crashes(), mutants()]
    start = [
        "# Evidence",
        "Every table is made from a file under `scripts/results`; the command above it prints the "
        "figures again. DATA is `cifar10.zip`, the folder `mnist` or `tiny_imagenet_animals.zip`, "
        "as [`rvis.data.load`](api/training.md) reads them; comparisons with other libraries want "
        '`pip install -e ".[bench]"`.',
        f"!!! note\n\n    {load('recorded')['note']}\n\n    Benchmarks, kernels, killed runs "
        "and concepts are newer: they are read from what the command wrote.",
    ]
    for topic, parts in sections.items():
        start += [f"## {TOPICS[topic]}", *parts]
    return "\n\n".join(start) + "\n"


def cards() -> dict[str, dict[str, Any]]:
    """The cards of the shipped networks by name."""
    places = sorted((ROOT / "weights").glob("*/card.json"))
    return {place.parent.name: json.loads(place.read_text(encoding="utf-8")) for place in places}


def _attack(card: dict[str, Any]) -> str:
    attack = card["attack"]
    count = f", {attack['test_images']:,} images" if attack["test_images"] != 10_000 else ""
    norm = {"l2": "L2", "linf": "Linf"}[attack["norm"]]
    return f"{attack['accuracy']:.1%} (PGD-{attack['steps']}, {norm} {attack['eps']:g}{count})"


def networks() -> str:
    """The page of networks: a table of those that are shipped, their cards, and where more are."""
    text = Path(__file__).with_name("networks.md").read_text(encoding="utf-8")
    found = cards()
    head = ["name", "data", "input", "accuracy", "under attack", "size"]
    rows = [
        [
            f"[`{name}`](#{name})",
            card["data"],
            "×".join(map(str, card["input_shape"])),
            f"{card['accuracy']:.1%}",
            _attack(card),
            f"{card['bytes'] / 1e6:.1f} MB",
        ]
        for name, card in found.items()
    ]
    parts = []
    for name, card in found.items():
        about = [
            ["architecture", f"`{card['architecture']}`, `{json.dumps(card['config'])}`"],
            ["classes", ", ".join(card["classes"])],
            ["data", f"{card['data']} ({card['licence_of_data']})"],
            ["test images", f"{card['test_images']:,}"],
            ["training", f"{card['minutes']:g} minutes on {card['device']}, seed {card['seed']}"],
            ["SHA-256", f"`{card['sha256']}`"],
        ]
        note = [card["note"]] if card.get("note") else []
        steps = card["command"].replace(" && ", " &&\n")
        parts += [f"### {name}", table(["", ""], about), *note, commands([steps])]
    scenes = json.loads((ROOT / "weights/clip/scenes/card.json").read_text(encoding="utf-8"))
    named = ", ".join(
        f"{what} {share:.1%}" for what, share in scenes["zero_shot"]["held_out"].items()
    )
    text = text.replace("{{clip}}", named).replace("{{scenes}}", f"{scenes['test_scenes']:,}")
    return text.replace("{{table}}", table(head, rows)).replace("{{cards}}", "\n\n".join(parts))
