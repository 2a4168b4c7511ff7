"""The results of finished runs in one file, one table and one figure."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.information_extraction.data import DataError
from experiments.information_extraction.report import precision_recall
from experiments.runs import CONFIG, save_figure, write_atomically


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
    """Writes ``NAME.json``, ``NAME.md`` and ``NAME.png``; returns means and standard errors over seeds."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for directory in sorted(config.runs):
        path = directory / "result.json"
        if not path.is_file():
            raise DataError(f"{directory} has no finished run")
        settings = json.loads((directory / CONFIG).read_text())
        kept = {key: value for key, value in settings.items() if key not in ("out", "train", "valid", "test", "model")}
        groups[re.sub(r"-?\d+$", "", directory.name)].append(json.loads(path.read_text()) | {"config": kept})
    rows = [row for name, found in groups.items() for row in rows_of(name, found)]
    config.out.mkdir(parents=True, exist_ok=True)
    write_atomically(config.out / f"{config.name}.md", ("\n".join([*HEAD, *rows]) + "\n").encode())
    write_atomically(config.out / f"{config.name}.json", (json.dumps(groups, separators=(",", ":")) + "\n").encode())
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    precision_recall(figure.subplots(), {name: found[0]["test"] for name, found in groups.items()})
    save_figure(config.out / f"{config.name}.png", figure)
    return {name: {key: mean_of(found, *path) for key, path in MEASURES.items()} for name, found in groups.items()}


MEASURES = {
    "valid F1": ("valid", "string", "all", "f1"),
    "test F1": ("test", "string", "all", "f1"),
    "precision": ("test", "string", "all", "precision"),
    "recall": ("test", "string", "all", "recall"),
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
        cells = (name, "mean", shown["valid F1"], shown["test F1"], shown["precision"], shown["recall"], "")
        rows.append("| " + " | ".join([*cells, shown["unseen-triple F1"]]) + " |")
    return rows
