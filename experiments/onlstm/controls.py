"""What the trees of ordered neurons are worth: language models and their controls, in one table and one figure.

    python -m experiments.onlstm.controls --out runs/controls --model.data DIR   # a treebank
    python -m experiments.onlstm.controls --out runs/controls                       # generated formulas
    python -m experiments.onlstm.controls --out runs/quick --tiny                   # to see that it works

The ordered LSTM stands beside the same network untrained; the plain LSTM, whose forget gates are read as distances
(Dyer et al., 2019); the gate without a dead chunk; master gates of the input alone; and temperatures and initial
biases of the master logits, which decide how near to 0 and 1 the distances are. All trees are read by both parsers,
the unbiased one and the paper's; those of random distances and of no model are what they have to be compared with.
Each model is a run of ``experiments.onlstm.language`` in a directory of its own, which goes on where it was killed.

Reference: Dyer, Melis, Blunsom, "A Critical Analysis of Biased Parsers in Unsupervised Parsing", 2019.
https://arxiv.org/abs/1909.09428
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rich
import tyro
from rich.table import Table

from experiments.files import errors_told, save_figure, write_atomically, write_json
from experiments.onlstm import corpus, language, parse

# What differs from the ordered LSTM of the paper.
CONTROLS: dict[str, dict[str, Any]] = {
    "ordered": {},
    "lstm": {"cell": "lstm"},
    "untrained": {"num_epochs": 0},
    "inclusive": {"cell": "inclusive"},
    "input_only": {"cell": "input_only"},
    "temperature_0.5": {"temperature": 0.5},
    "temperature_2": {"temperature": 2.0},
    "bias_rising_4": {"master_bias": 4.0},
    "bias_falling_4": {"master_bias": -4.0},
}


@dataclass(frozen=True)
class Arguments:
    """Which runs to make."""

    out: Path = Path("runs/controls")
    """Directory of the runs, the table and the figure."""
    controls: tuple[str, ...] = tuple(CONTROLS)
    """Models to train."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each."""
    finished: bool = False
    """Whether to report those that are trained already, perhaps on several machines, and to train none."""
    tiny: bool = False
    """Settings so small that they show only that it works."""
    model: language.Config = dataclasses.field(default_factory=language.Config)
    """Settings that all models share."""


def config_of(arguments: Arguments, control: str, seed: int) -> language.Config:
    """The settings of one model."""
    base = dataclasses.replace(language.TINY, data=arguments.model.data) if arguments.tiny else arguments.model
    out = arguments.out / f"{control}-{seed}"
    return dataclasses.replace(base, out=out, seed=seed, **CONTROLS[control])


def finished(config: language.Config) -> dict[str, Any] | None:
    """The numbers of a model that is trained already."""
    file = config.out / "result.json"
    stored = json.loads(file.read_text()) if file.exists() else {}
    return stored if stored.get("epochs") == config.num_epochs else None


def row_of(results: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over the seeds of a control of each number in the table."""
    columns = {"perplexity": [result["test_perplexity"] for result in results]}
    for name in results[0]["f1"]:
        columns[name] = [result["f1"][name]["sentence_f1"] for result in results]
    for layer in results[0]["distances"]:
        for name in ("0.5", "above 0.95"):
            columns[f"{layer}, distance {name}"] = [result["distances"][layer][name] for result in results]
    return {
        name: (float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)
        for name, values in columns.items()
    }


def cell(column: str, mean: float, spread: float, count: int) -> str:
    """A number of the table."""
    digits = 2 if "distance" in column else 0 if column == "perplexity" else 1
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if count > 1 else "")


def rows_of(summary: dict[str, Any]) -> dict[str, dict[str, tuple[float, float]]]:
    """The rows of the table by control."""
    return {control: row_of(of_control) for control, of_control in summary["runs"].items()}


def circumstances(summary: dict[str, Any]) -> str:
    """How the numbers came about, in a sentence."""
    settings = summary["settings"]
    return (
        f"Language models of {settings['num_layers']} layers of {settings['hidden_dim']} and"
        f" {settings['embedding_dim']} units, {settings['num_epochs']} epochs: test perplexity, sentence F1 in % of the"
        f" trees of each layer by both parsers, and the median of its distances beside the share above 0.95; mean and"
        f" standard deviation over seeds."
    )


def table_of(summary: dict[str, Any]) -> list[list[str]]:
    """The cells of the table, its head first."""
    rows = rows_of(summary)
    columns = list(next(iter(rows.values())))
    found = [["model", "seeds", *columns]]
    for control, row in rows.items():
        count = len(summary["runs"][control])
        found.append([control, str(count), *[cell(column, *row[column], count) for column in columns]])
    return found


def markdown_of(summary: dict[str, Any]) -> str:
    """The results as tables for a README."""
    head, *rows = (f"| {' | '.join(cells)} |" for cells in table_of(summary))
    lines = [head, "|---" * (head.count("|") - 1) + "|", *rows]
    lines += ["", "| trees without a model | sentence F1 | corpus F1 |", "|---|---|---|"]
    for name, scores in summary["baselines"].items():
        lines.append(f"| {name} | {scores['sentence_f1']:.1f} | {scores['corpus_f1']:.1f} |")
    return "\n".join(lines) + "\n"


def figure_of(summary: dict[str, Any]) -> Any:
    """F1 of the layer that is read as a tree best, by both parsers, beside trivial trees; and its distances.

    The best layer of each model is that of the highest F1 by the unbiased parser, mean over seeds: an upper bound,
    for it is chosen by the gold trees.
    """
    from matplotlib.figure import Figure

    rows, baselines = rows_of(summary), summary["baselines"]
    layers = list(next(iter(summary["runs"].values()))[0]["distances"])
    best = {name: max(layers, key=lambda layer: row[f"{layer}, unbiased"][0]) for name, row in rows.items()}
    figure = Figure(figsize=(10, 0.45 * len(rows) + 2.2), layout="constrained")
    scores, spreads = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(rows))
    for offset, parser, color in ((-0.13, "unbiased", "tab:blue"), (0.13, "right-biased", "tab:orange")):
        values = np.array([row[f"{best[name]}, {parser}"] for name, row in rows.items()])
        x, bars = values.T
        scores.errorbar(x, places + offset, xerr=bars, fmt="o", color=color, capsize=3, label=f"{parser} parser")
        score = baselines[f"random distances, {parser}"]["sentence_f1"]
        scores.axvline(score, color=color, linestyle=":", label=f"random distances, {parser}")
    for name, style in (("right branching", "-"), ("balanced", "--")):
        scores.axvline(baselines[name]["sentence_f1"], color="gray", linestyle=style, label=name)
    scores.set(xlabel="sentence F1, %", yticks=places, title="trees of the best layer")
    scores.set_yticklabels([f"{name.replace('_', ' ')}, {best[name]}" for name in rows])
    scores.set_ylim(len(rows) - 0.5, -0.5)
    for place, (name, runs) in zip(places, summary["runs"].items(), strict=True):
        quantiles = [run["distances"][best[name]] for run in runs]
        low, first, middle, third, high = (np.mean([one[f"{q:g}"] for one in quantiles]) for q in parse.QUANTILES)
        spreads.plot([low, high], [place, place], color="tab:green", linewidth=1)
        spreads.plot([first, third], [place, place], color="tab:green", linewidth=6, solid_capstyle="butt")
        spreads.plot(middle, place, "o", color="white", markeredgecolor="tab:green", markersize=5)
    spreads.set(xlabel="distance: 5, 25, 50, 75 and 95% of the words are below", xlim=(-0.02, 1.02))
    spreads.set_title("its distances")
    for axes in (scores, spreads):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*scores.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def report(summary: dict[str, Any], out: Path) -> None:
    """Writes numbers, tables and figure: ``controls`` with suffixes json, md and png."""
    write_json(out / "controls.json", summary)
    write_atomically(out / "controls.md", markdown_of(summary).encode())
    save_figure(out / "controls.png", figure_of(summary))


def main(arguments: Arguments) -> dict[str, Any]:
    """Trains what is not trained yet, seed after seed, and reports after each model; returns the numbers."""
    settings = language.TINY if arguments.tiny else arguments.model
    names = ("num_layers", "hidden_dim", "embedding_dim", "chunk_size", "num_epochs", "window", "batch_size")
    summary: dict[str, Any] = {
        "settings": {name: getattr(settings, name) for name in names},
        "baselines": parse.baselines(corpus.load(arguments.model.data).test),
        "runs": {},
    }
    for seed in arguments.seeds:
        for control in arguments.controls:
            config = config_of(arguments, control, seed)
            result = finished(config)
            if result is None and not arguments.finished:
                result = language.main(config)
            if result is not None:
                summary["runs"].setdefault(control, []).append(result | {"seed": seed})
                report(summary, arguments.out)
    if not summary["runs"]:
        raise ValueError(f"{arguments.out} has no trained model of these controls and seeds")
    head, *rows = table_of(summary)
    table = Table(*head, title="test perplexity; sentence F1 in %; median distance, share above 0.95")
    for row in rows:
        table.add_row(*row)
    rich.print(table)
    return summary


if __name__ == "__main__":
    with errors_told():
        main(tyro.cli(Arguments, description=__doc__))
