"""The results of finished runs in one file, two tables and two figures."""

import json
import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.files import save_figure, write_atomically
from experiments.information_extraction.data import DataError
from experiments.information_extraction.report import colors, precision_recall
from experiments.runs import CONFIG, read_metrics

#: Settings that name a place of one machine.
PATHS = ("out", "train", "valid", "test", "model", "start")


@dataclass(frozen=True)
class Collection:
    """Settings of a collection."""

    runs: tuple[Path, ...]
    """Directories of finished runs; what is the same up to a number at the end are seeds of one model."""
    name: str = "webnlg"
    """Of the files."""
    out: Path = Path(__file__).parent / "results"
    """Where they are written."""


def collect(config: Collection) -> dict[str, Any]:
    """Writes ``NAME.json``, ``NAME.md``, ``NAME.png`` and ``NAME-curves.png``, and prints the second of them.

    Returns means and standard errors.
    """
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for directory in sorted(config.runs):
        path = directory / "result.json"
        if not path.is_file():
            raise DataError(f"{directory} has no finished run")
        settings = json.loads((directory / CONFIG).read_text())
        kept = {key: value for key, value in settings.items() if key not in PATHS}
        result = json.loads(path.read_text())
        more = {"config": kept, "training": by_epoch(read_metrics(directory), result["steps"] / kept["num_epochs"])}
        groups[re.sub(r"-?\d+$", "", directory.name)].append(result | more)
    rows = [row for name, found in groups.items() for row in rows_of(name, found)]
    tables = "\n".join([*HEAD, *rows, "", *mistakes_of(groups)])
    write_atomically(config.out / f"{config.name}.md", f"{tables}\n".encode())
    print(tables)
    write_atomically(config.out / f"{config.name}.json", (json.dumps(groups, separators=(",", ":")) + "\n").encode())
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    whole, detail = figure.subplots(1, 2)
    for axes in (whole, detail):
        precision_recall(axes, {name: found[0]["test"] for name, found in groups.items()})
    points = [found[0]["test"]["string"]["all"] for found in groups.values()]
    # Where the models are, which in the whole lie on one another.
    margin = 0.06
    detail.set_xlim(min(at["recall"] for at in points) - margin, max(at["recall"] for at in points) + margin)
    detail.set_ylim(min(at["precision"] for at in points) - margin, max(at["precision"] for at in points) + margin)
    detail.get_legend().remove()
    save_figure(config.out / f"{config.name}.png", figure)
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    curves(figure, {name: [result["training"] for result in found] for name, found in groups.items()})
    save_figure(config.out / f"{config.name}-curves.png", figure)
    return {name: {key: mean_of(found, *path) for key, path in MEASURES.items()} for name, found in groups.items()}


MEASURES = {
    "valid F1": ("valid", "string", "all", "f1"),
    "test F1": ("test", "string", "all", "f1"),
    "precision": ("test", "string", "all", "precision"),
    "recall": ("test", "string", "all", "recall"),
    "look-up F1": ("test", "string", "look_up", "f1"),
    "unseen-triple F1": ("test", "string", "unseen", "f1"),
}
HEAD = (
    "| model | seed | valid F1 | test F1 (95%) | precision | recall | look-up F1 | unseen-triple F1 (95%; triples) |",
    "|---|---|---|---|---|---|---|---|",
)


def mean_of(results: list[dict[str, Any]], *path: str) -> tuple[float, float | None]:
    """The mean over seeds of a number, and its standard error if there are two."""
    values = []
    for result in results:
        value: Any = result
        for key in path:
            value = value[key]
        values.append(value)
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), error


def rows_of(name: str, results: list[dict[str, Any]]) -> list[str]:
    """A row for each seed, and one of the means."""
    rows = []
    for result in results:
        test, valid = result["test"]["string"], result["valid"]["string"]
        cells = (
            name,
            result["config"]["seed"],
            f"{valid['all']['f1']:.4f}",
            f"{test['all']['f1']:.4f} ({test['all']['low']:.3f} to {test['all']['high']:.3f})",
            f"{test['all']['precision']:.4f}",
            f"{test['all']['recall']:.4f}",
            f"{test['look_up']['f1']:.4f}",
            f"{test['unseen']['f1']:.4f} ({test['unseen']['low']:.3f} to {test['unseen']['high']:.3f};"
            f" {test['unseen']['true']})",
        )
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    if len(results) > 1:
        means = {key: mean_of(results, *path) for key, path in MEASURES.items()}
        shown = {key: f"{mean:.4f} ± {error:.4f}" for key, (mean, error) in means.items()}
        rows.append("| " + " | ".join([name, "mean", *shown.values()]) + " |")
    return rows


def mistakes_of(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A table of the mistakes on the test by type, those that are most often made first; means over seeds."""
    counts = {
        (name, kind): {
            reason: float(np.mean([found["test"]["errors"][kind].get(reason, 0) for found in results]))
            for reason in sorted({key for found in results for key in found["test"]["errors"][kind]})
        }
        for name, results in groups.items()
        for kind in ("wrong", "missed")
    }
    totals = Counter[str]()
    for of_kind in counts.values():
        totals.update(of_kind)
    reasons = [reason for reason, _ in totals.most_common()]
    rows = [
        f"| {name}, {kind} | {sum(of_kind.values()):.0f} | "
        + " | ".join(f"{of_kind.get(reason, 0):.0f}" for reason in reasons)
        + " |"
        for (name, kind), of_kind in counts.items()
    ]
    return [
        f"| mistakes on the test, means over seeds | all | {' | '.join(reasons)} |",
        "|---" * (len(reasons) + 2) + "|",
        *rows,
    ]


#: What curves are drawn of, by the names in the metrics of a run.
LOSS, VALID = "loss", "valid_f1"
Points = list[tuple[float, float]]


def by_epoch(metrics: list[dict[str, Any]], steps_per_epoch: float) -> dict[str, Points]:
    """Training loss and validation F1 against epochs; the loss is the mean of what an epoch has written."""
    losses: dict[int, list[float]] = defaultdict(list)
    for line in metrics:
        if LOSS in line:
            losses[math.ceil(line["step"] / steps_per_epoch - 1e-9)].append(line[LOSS])
    scores = [(line["step"] / steps_per_epoch, line[VALID]) for line in metrics if VALID in line]
    return {LOSS: [(float(epoch), float(np.mean(values))) for epoch, values in losses.items()], VALID: scores}


def mean_curve(seeds: list[Points]) -> Points:
    """The mean over seeds at the epochs that all of them have."""
    tables = [{round(x, 6): y for x, y in points} for points in seeds]
    shared = set(tables[0]).intersection(*tables[1:])
    return [(x, float(np.mean([table[x] for table in tables]))) for x in sorted(shared)]


def curves(figure: Any, groups: dict[str, list[dict[str, Points]]]) -> None:
    """Each seed as a thin line, and the mean of each model's as a thick one."""
    for axes, name, label in zip(figure.subplots(1, 2), (LOSS, VALID), ("training loss", "validation F1"), strict=True):
        for color, (group, found) in zip(colors(len(groups)), groups.items(), strict=True):
            seeds = [result[name] for result in found if result[name]]
            if not seeds:
                continue
            if len(seeds) > 1:
                for points in seeds:
                    axes.plot(*zip(*points, strict=True), color=color, alpha=0.4, linewidth=0.8)
            text = f"{group}, mean of {len(seeds)} seeds" if len(seeds) > 1 else f"{group}, one seed"
            mean = mean_curve(seeds)
            axes.plot([x for x, _ in mean], [y for _, y in mean], color=color, linewidth=1.8, label=text)
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_yscale("log")
    # One for both, below: inside there is no room that some curve does not need.
    handles, labels = figure.axes[1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
