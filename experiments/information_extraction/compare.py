"""Do our own primitives help? Runs of several seeds that differ in one setting, and the differences with their errors.

f1          a trained model, trained further: by cross entropy, or by the smoothed, linearised F1 of triples
selection   subjects to train on: those of the text, or the model's own by straight-through gradients
gates       with and without the probabilities of a boundary and of a predicate to occur
prior       with and without the look-up of the training's triples as an input
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rich

from experiments.files import write_atomically, write_json
from experiments.information_extraction.config import Config
from experiments.information_extraction.train import main

#: What differs; the first is what the others are compared with.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "f1": {"entropy": {"loss": "entropy"}, "f1": {"loss": "f1"}},
    "selection": {
        "teacher": {"condition": "norm"},
        "straight_through": {"condition": "norm", "selection": "straight_through"},
    },
    "gates": {"without": {}, "with": {"gates": True}},
    "prior": {"without": {}, "with": {"prior": True}},
}


@dataclass(frozen=True)
class Comparison:
    """Settings of a comparison."""

    out: Path = Path("runs/extraction-compare")
    """Directory of all runs; the same command goes on where it was killed."""
    name: Literal["f1", "selection", "gates", "prior"] = "f1"
    """What is compared."""
    seeds: tuple[int, ...] = tuple(range(10))
    """Runs of each kind. Some of them may be made elsewhere: directories are found by the number of the seed."""
    further_epochs: int = 6
    """Of the further training of the comparison f1."""
    further_rate: float = 2e-4
    """Its learning rate."""
    base: Config = field(default_factory=Config)
    """What all runs have in common."""


def result_of(config: Config) -> dict[str, Any]:
    """The result of a run, which is made unless it is there."""
    if not (config.out / "result.json").is_file():
        rich.print(f"[bold]{config.out.name}")
        main(config)
    return json.loads((config.out / "result.json").read_text())


def runs_of(config: Comparison, seed: int) -> dict[str, Config]:
    """The runs of a seed by name, in the order in which they are made."""
    begin = dataclasses.replace(config.base, seed=seed, out=config.out / f"begin-{seed}")
    base, runs = config.base, {}
    if config.name == "f1":
        further = {"num_epochs": config.further_epochs, "learning_rate": config.further_rate, "evaluate_every": 1}
        base, runs = dataclasses.replace(config.base, start=begin.out / "model", **further), {"begin": begin}
    for name, changes in VARIANTS[config.name].items():
        runs[name] = dataclasses.replace(base, seed=seed, out=config.out / f"{name}-{seed}", **changes)
    return runs


def compare(config: Comparison) -> dict[str, Any]:
    """Makes all runs; returns F1 of each, means with standard errors, and the paired differences.

    Of one seed there are no errors: its runs are made, and the result is empty.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    for seed in config.seeds:
        for name, run in runs_of(config, seed).items():
            add(scores.setdefault(name, {}), result_of(run))
    if len(config.seeds) < 2:
        rich.print("One seed alone has no standard error: compare again with all of them for means and differences.")
        return {}
    first, *others = VARIANTS[config.name]
    result = {
        "name": config.name,
        "seeds": config.seeds,
        "scores": scores,
        "means": {name: {key: with_error(values) for key, values in found.items()} for name, found in scores.items()},
        "differences": {
            f"{name} - {first}": {
                key: with_error(list(np.subtract(scores[name][key], scores[first][key]))) for key in scores[name]
            }
            for name in others
        },
    }
    write_json(config.out / f"{config.name}.json", result)
    write_atomically(config.out / f"{config.name}.md", table_of(result).encode())
    print(table_of(result), end="")
    return result


COLUMNS = {"test_f1": "test F1", "test_f1_at_half": "test F1, thresholds 1/2", "test_unseen_f1": "unseen-triple F1"}


def table_of(result: dict[str, Any]) -> str:
    """The look-up table's F1, means and differences, each with its standard error over seeds."""
    lines = [f"| {len(result['seeds'])} seeds | " + " | ".join(COLUMNS.values()) + " |", "|---" * 4 + "|"]
    known, error = next(iter(result["means"].values()))["test_look_up_f1"]
    lines.append(f"| look-up table | {known:.4f} ± {error:.4f} | | 0 |")
    for sign, part in (("", result["means"]), ("+", result["differences"])):
        for name, values in part.items():
            cells = [f"{values[key][0]:{sign}.4f} ± {values[key][1]:.4f}" for key in COLUMNS]
            lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def add(scores: dict[str, list[float]], result: dict[str, Any]) -> None:
    """Adds what a run reports."""
    for part in ("valid", "test"):
        of_part = result[part]["string"]
        scores.setdefault(f"{part}_f1", []).append(of_part["all"]["f1"])
        scores.setdefault(f"{part}_look_up_f1", []).append(of_part["look_up"]["f1"])
        scores.setdefault(f"{part}_unseen_f1", []).append(of_part["unseen"]["f1"])
        scores.setdefault(f"{part}_f1_at_half", []).append(result[part]["f1_at_half"])


def with_error(values: list[float]) -> tuple[float, float]:
    """Mean and standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
