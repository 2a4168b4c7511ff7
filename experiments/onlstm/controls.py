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

from experiments.onlstm import corpus, language, parse
from experiments.runs import save_figure, write_atomically

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
    tiny: bool = False
    """Settings so small that they show only that it works."""
    model: language.Config = dataclasses.field(default_factory=language.Config)
    """Settings that all models share."""


def result_of(arguments: Arguments, control: str, seed: int) -> dict[str, Any]:
    """The numbers of one model, which is trained if it is not yet."""
    directory = arguments.out / f"{control}-{seed}"
    base = dataclasses.replace(language.TINY, data=arguments.model.data) if arguments.tiny else arguments.model
    config = dataclasses.replace(base, out=directory, seed=seed, **CONTROLS[control])
    file = directory / "result.json"
    stored = json.loads(file.read_text()) if file.exists() else {}
    if stored.get("epochs") == config.num_epochs:
        return stored
    return language.main(config)


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


def report(results: dict[str, list[dict[str, Any]]], baselines: dict[str, parse.Scores], out: Path) -> Table:
    """Writes ``controls.md``, ``controls.json`` and ``controls.png``; returns the table."""
    rows = {control: row_of(of_control) for control, of_control in results.items()}
    columns = list(next(iter(rows.values())))
    table = Table(
        "model", "seeds", *columns, title="test perplexity; sentence F1 in %; median distance, share above 0.95"
    )
    lines = ["| model | seeds | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for control, row in rows.items():
        count = len(results[control])
        cells = [cell(column, *row[column], count) for column in columns]
        table.add_row(control, str(count), *cells)
        lines.append(f"| {control} | {count} | " + " | ".join(cells) + " |")
    lines += ["", "| trees without a model | sentence F1 | corpus F1 |", "|---|---|---|"]
    lines += [f"| {name} | {row['sentence_f1']:.1f} | {row['corpus_f1']:.1f} |" for name, row in baselines.items()]
    (out / "controls.md").write_text("\n".join(lines) + "\n")
    summary = {"runs": results, "baselines": baselines}
    write_atomically(out / "controls.json", (json.dumps(summary, indent=1) + "\n").encode())
    save_figure(out / "controls.png", figure_of(results, rows, baselines))
    return table


def figure_of(
    results: dict[str, list[dict[str, Any]]], rows: dict[str, Any], baselines: dict[str, parse.Scores]
) -> Any:
    """F1 of the last layer by both parsers beside trivial trees, and the spread of its distances."""
    from matplotlib.figure import Figure

    layer = max(next(iter(results.values()))[0]["distances"])
    figure = Figure(figsize=(10, 0.45 * len(rows) + 1.8), layout="constrained")
    scores, spreads = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(rows))
    for offset, parser, color in ((-0.13, "unbiased", "tab:blue"), (0.13, "right-biased", "tab:orange")):
        values = np.array([row[f"{layer}, {parser}"] for row in rows.values()])
        scores.errorbar(
            values[:, 0], places + offset, xerr=values[:, 1], fmt="o", color=color, capsize=3, label=f"{parser} parser"
        )
        score = baselines[f"random distances, {parser}"]["sentence_f1"]
        scores.axvline(score, color=color, linestyle=":", label=f"random distances, {parser}")
    for name, style in (("right branching", "-"), ("balanced", "--")):
        scores.axvline(baselines[name]["sentence_f1"], color="gray", linestyle=style, label=name)
    scores.set(xlabel="sentence F1, %", yticks=places, title=f"trees of {layer}")
    scores.set_yticklabels([name.replace("_", " ") for name in rows])
    scores.invert_yaxis()
    for place, control in zip(places, rows, strict=True):
        quantiles = [result["distances"][layer] for result in results[control]]
        low, first, middle, third, high = (np.mean([one[f"{q:g}"] for one in quantiles]) for q in parse.QUANTILES)
        spreads.plot([low, high], [place, place], color="tab:green", linewidth=1)
        spreads.plot([first, third], [place, place], color="tab:green", linewidth=6, solid_capstyle="butt")
        spreads.plot(middle, place, "o", color="white", markeredgecolor="tab:green", markersize=5)
    spreads.set(xlabel="distances: 5, 25, 50, 75, 95%", xlim=(-0.02, 1.02), title="where the distances are")
    for axes in (scores, spreads):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*scores.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def main(arguments: Arguments) -> dict[str, list[dict[str, Any]]]:
    """Trains what is not trained yet, seed after seed, and reports after each model."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    baselines = parse.baselines(corpus.load(arguments.model.data).test)
    results: dict[str, list[dict[str, Any]]] = {}
    table = Table()
    for seed in arguments.seeds:
        for control in arguments.controls:
            results.setdefault(control, []).append(result_of(arguments, control, seed))
            table = report(results, baselines, arguments.out)
    rich.print(table)
    return results


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
