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
    asked, drawn = [], []
    for test in tested["tests"]:
        for name in ("zebra", "school bus"):
            figures = [
                "< 0.001" if what.startswith("p") and value < 0.001 else f"{value:.3g}"
                for what, value in list(test[name].items())[:6]
            ]
            asked.append([f"`{test['layer']}`", name, *figures])
        if fresh := test.get("random"):
            low, high = fresh["interval"]
            drawn.append(
                f"Of {fresh['concepts']} fresh random concepts in the place of stripes (school "
                f"bus, `{test['layer']}`), {fresh['p < .05']} have p < .05 (a share between "
                f"{low:.3f} and {high:.3f}; one in twenty would be right), "
                f"{fresh['p < .01']} p < .01, and {fresh['p by Welch < .05']} p < .05 by Welch's "
                "test."
            )
    head = ["layer", "class", "score", "of random concepts", "cosine", "spread of random concepts"]
    head += ["p", "p, Welch"]
    photos = "python scripts/concepts.py --model googlenet_bvlc --photos FOLDER --tcav "
    photos += " ".join(test["layer"] for test in tested["tests"])
    return "\n\n".join(
        [
            "### Autoencoders",
            commands(["python scripts/concepts.py DATA --json concepts.json"]),
            "Sparse autoencoders (TopK) on all places of a layer, on two cores. They explain the "
            "layer, but their top nine images are no purer in classes than the channels'. The "
            f"first took {found['autoencoders'][0]['seconds']:.0f} seconds in all on two idle "
            "cores, its layer's activations included.",
            table(names, rows),
            "### TCAV",
            commands([photos]),
            f"Drawn stripes against drawn dots and noise on `{tested['model']}`, at two layers: "
            "the middle block, which was fixed beforehand, and the last. The images are windows of "
            "one photograph a class, so that the answer is about that photograph. `p` compares the "
            "mean cosine of "
            "gradient and direction with that of 999 random concepts; Welch's t test of the scores "
            "is the paper's.",
            table(head, asked),
            *drawn,
        ]
    )


def roofline() -> str:
    """What steps cost beside the network's own passes, and what accelerators would need."""
    found = load("roofline")
    head = ["network, layer", "`visualize`", "of which Fourier", "plain ascent", "`gradient`"]
    columns = ("visualize", "transforms of Fourier", "plain ascent", "gradient")
    rows = [
        [f"`{row['network']}`, `{row['layer']}`", *(f"{row[c]:.2f}" for c in columns)]
        for row in found["families"]
    ]
    methods = [
        [f"`{row['method']}`", row["forward"], row["backward"], f"{row['ratio']:.2f}", row["why"]]
        for row in found["methods"]
    ]
    whole = found["all of InceptionV1"]
    chips = {name: about for name, about in whole.items() if isinstance(about, dict)}
    times = {name: about["seconds by devices"] for name, about in chips.items()}
    devices = [*next(iter(times.values()))]
    return "\n\n".join(
        [
            "### Operations of a step, on paper",
            commands(["python scripts/bench/roofline.py"]),
            "XLA's count of a step's operations over those of the network's own forward and "
            "backward pass. XLA counts the picture's two transforms of Fourier as complex ones, "
            "several times what they take.",
            table(head, rows),
            "Other methods on one image of ResNet-18, over the passes that a step of the method "
            "asks for.",
            table(["method", "forward", "backward", "ratio", "why so many"], methods),
            f"Pictures of all {whole['units']:,} channels of InceptionV1 at {whole['pixels']} "
            f"pixels and {whole['steps']} steps, by the makers' peaks in bfloat16: seconds below "
            "which no program comes. Devices send one another nothing; each is sent the weights "
            "once.",
            table(
                ["devices", *devices],
                [[name, *(f"{told[n]:.3g}" for n in devices)] for name, told in times.items()],
            ),
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


def fuzz() -> str:
    """Calls with wrong arguments, and what came of them."""
    found = load("fuzz")
    about = (
        f"Every argument of {found['functions']} public functions and classes gets what is wrong "
        "for its kind. Refused is what raises an error that begins with the argument's name, and "
        "compiles nothing. Fair are values that may be taken, which `FAIR` in "
        "`scripts/fuzz/values.py` lists; right are calls without a wrong value, all of whose "
        "numbers are finite but where `UNKNOWN` there says why not. "
        f"{found['bad']} of {found['calls']} calls came to anything else."
    )
    command = commands(["python scripts/fuzz.py --out scripts/results/fuzz.json"])
    rows = [[verdict, count] for verdict, count in found["verdicts"].items()]
    return "\n\n".join(["### Wrong arguments", command, about, table(["calls", "number"], rows)])


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


def peers() -> str:
    """Maps and judges beside other libraries: how far apart, and how long."""
    found, timed = load("attribution_peers"), load("attribution_times")
    rows = []
    for row in found["rows"]:
        far = f"{row['difference']:.1e}"
        if row["in"] != "relative":
            far = f"{row['difference']:.1f} standard errors"
        note = f"{'another definition: ' * row['differ']}{row['note']}"
        rows.append([row["peer"], f"`{row['network']}`", row["method"], far, note])
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    about = (
        "The same weights and images on both sides. The difference is ‖a − b‖ / ‖b‖ of maps or "
        "figures; where both sides draw at random, the largest of their means in joint standard "
        f"errors. {found['date']}, {versions}. The command compares more than had been run by then."
    )
    parts = [
        "### Maps and judges beside their peers",
        commands(["python scripts/attribution_check.py --rounds 0 --json peers.json"]),
        about,
        table(["peer", "network", "method", "difference", "note"], rows),
    ]
    rows = [
        [row["peer"], f"`{row['network']}`", row["method"]]
        + [f"{1e3 * seconds:,.0f}" for seconds in row["seconds"]]
        + [f"{row['ratio']:.2f}"]
        for row in timed["rows"]
    ]
    race = timed["race"]
    samples, errors, seconds = race["samples"], race["errors"], race["seconds"]
    parts += [
        commands(
            ["python scripts/attribution_check.py captum cams race --size 224 --json times.json"]
        ),
        f"Medians of calls in turn once all is compiled, {timed['images']} images of "
        f"{timed['size']} pixels where no other size stands, {timed['cores']} cores, "
        f"{timed['date']}.",
        table(["peer", "network", "method", "rvis, ms", "peer, ms", "ratio"], rows),
        f"KernelSHAP of {race['players']} players: rvis with {samples[0]} coalitions has an error "
        f"of {errors[0]:.4f}, captum with {samples[1]} one of {errors[1]:.4f}; {seconds[0]:.3g} s "
        f"beside {seconds[1]:.3g} s (at its fastest `perturbations_per_eval`, "
        f"{race['perturbations_per_eval']}): {race['ratio']:.2f}.",
    ]
    return "\n\n".join(parts)


def leaderboard() -> list[str]:
    """Methods by measures, network by network, and which fail the sanity check; if measured."""
    if not (RESULTS / "leaderboard.json").exists():
        return []
    found = load("leaderboard")
    parts = [
        "### Which method is best, by which measure",
        commands(
            [
                "python scripts/leaderboard.py PHOTOGRAPHS --models efficientnet_lite0 "
                "--pretrained --methods gradient grad_cam lrp --json board.json",
                "python scripts/leaderboard.py cifar10.zip --methods gradient input_x_gradient "
                "guided_backprop grad_cam layer_cam lrp --json board.json",
            ]
        ),
        "Means over images, ± half of the 95 % interval; the target is the network's first choice. "
        "↑ is better high, ↓ low; Gini index and entropy say how concentrated a map is. The sanity "
        "check is the mean size of the rank correlation with the map of one network whose weights "
        "are all noise; a method fails where its interval, over images alone, reaches .5. Images "
        "of which a map is constant have no correlation.",
    ]
    for name, about in found.items():
        methods = about["methods"]
        measures = list(next(iter(methods.values())))
        rows, failed = [], []
        for method, judged in methods.items():
            cells = []
            for measure in measures:
                own = judged[measure]
                cells.append("–" if own is None else f"{own[0]:.2f} ± {own[2] - own[0]:.2f}")
                if measure.startswith("sanity") and own is not None and own[2] >= 0.5:
                    failed.append(f"`{method}`")
            rows.append([f"`{method}`", *cells])
        parts += [
            f"`{name}`, {about['images']} images, {about['date']}",
            table(["method", *measures], rows),
            f"The sanity check is failed by {', '.join(failed) if failed else 'none'}.",
        ]
    return ["\n\n".join(parts)]


def autoattack() -> list[str]:
    """AutoAttack and least distances beside torchattacks and foolbox: as much as is measured."""
    if not (RESULTS / "autoattack.json").exists():
        return []
    found, parts = load("autoattack"), []
    order = ("clean", "apgd-ce", "apgd-t", "fab-t", "square")
    for what, about in (
        ("accuracies", "Accuracy after each attack, and seconds beside other work."),
        ("times", "The same with seconds on a machine that did nothing else."),
    ):
        rows = []
        for name, each in found.get(what, {}).items():
            for side in ("rvis", "torchattacks"):
                shares = [f"{each[side][attack] / each['images']:.1%}" for attack in order]
                seconds = f"{each[f'{side}_seconds']['whole']:.0f}"
                setting = f"`{name}`, {each['norm']} {each['eps']:.3g}, {each['images']} images"
                rows.append([setting, side, *shares, seconds])
        if rows:
            command = "python -m scripts.bench.autoattack DATA --robust FILE"
            command += " --times" if what == "times" else ""
            head = table(["network", "side", *order, "seconds"], rows)
            parts.append("\n\n".join([commands([command]), about, head]))
    rows = [
        [name, f"{each['peer']:.4g}", f"{each['rvis']:.4g}", *each.get("queries", "––")]
        for name, each in found.get("minima", {}).items()
    ]
    if rows:
        about = (
            "Median distances on digits of `mnist_cnn`; the peer of FAB is torchattacks, of the "
            "others foolbox. HopSkipJump has no more queries than the least that foolbox took."
        )
        head = table(["attack", "peer", "rvis", "peer's queries", "rvis's"], rows)
        command = commands(["python -m scripts.bench.autoattack mnist --minima 100"])
        parts.append("\n\n".join([command, about, head]))
    return ["\n\n".join(["### AutoAttack and least distances beside their peers", *parts])]


def certificates() -> list[str]:
    """What is proved of a smoothed network; if measured."""
    if not (RESULTS / "certificates.json").exists():
        return []
    found, rows = load("certificates"), []
    for each in found["smoothed"]:
        bounds = zip(each["certified"], each["low"], each["high"], strict=True)
        cells = [f"{share:.1%} [{low:.1%}, {high:.1%}]" for share, low, high in bounds]
        rows.append([each["sigma"], f"{each['accuracy']:.1%}", f"{each['abstained']:.1%}", *cells])
    head = ["σ", "right", "abstains", *(f"radius {radius:g}" for radius in found["radii"])]
    left = ", ".join(f"{share:.1%}" for share in found["pgd"].values())
    about = (
        f"Certified accuracy of `{found['model']}` smoothed by noise, which it was not trained on, "
        f"with 95 % intervals; {found['images']} images, {found['samples']:,} draws, "
        f"α {found['alpha']:g}. PGD in L2 leaves {left} of the network itself there."
    )
    command = commands(["python scripts/certificates.py mnist_cnn mnist --json certificates.json"])
    return ["\n\n".join(["### Certificates", command, about, table(head, rows)])]


def page() -> str:
    """Every figure of the documentation, each below its command."""
    sections = recorded()
    sections["visualization"].append(recipes())
    sections["concepts"].insert(0, concepts())
    sections["attacks"] = [*autoattack(), *certificates(), *sections["attacks"]]
    sections["attribution"] += [*leaderboard(), peers()]
    sections["speed"] += [*map(bench, BENCHES), kernels(), roofline()]
    sections["speed"] += [crashes(), fuzz(), mutants()]
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
    attack = card.get("autoattack", card["attack"])
    count = f", {attack['test_images']:,} images" if attack["test_images"] != 10_000 else ""
    norm = {"l2": "L2", "linf": "Linf"}[attack["norm"]]
    name = "AutoAttack" if "autoattack" in card else f"PGD-{attack['steps']}"
    return f"{attack['accuracy']:.1%} ({name}, {norm} {attack['eps']:g}{count})"


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
        facts = [
            ["architecture", f"`{card['architecture']}`, `{json.dumps(card['config'])}`"],
            ["classes", ", ".join(card["classes"])],
            ["data", f"{card['data']} ({card['licence_of_data']})"],
            ["test images", f"{card['test_images']:,}"],
            ["training", f"{card['minutes']:g} minutes on {card['device']}, seed {card['seed']}"],
            ["SHA-256", f"`{card['sha256']}`"],
        ]
        note = [card["note"]] if card.get("note") else []
        steps = card["command"].replace(" && ", " &&\n")
        parts += [f"### {name}", table(["", ""], facts), *note, commands([steps])]
    for mark, name in (("{{clip}}", "scenes"), ("{{clip robust}}", "scenes_robust")):
        file = ROOT / "weights/clip" / name / "card.json"
        about = json.loads(file.read_text(encoding="utf-8"))
        named = about["zero_shot"]["held_out"].items()
        text = text.replace(mark, ", ".join(f"{what} {share:.1%}" for what, share in named))
    text = text.replace("{{scenes}}", f"{about['test_scenes']:,}")
    text = text.replace("{{eps}}", f"{about['recipe']['eps']:g}")
    return text.replace("{{table}}", table(head, rows)).replace("{{cards}}", "\n\n".join(parts))
