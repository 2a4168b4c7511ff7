"""The table and the figures of the training curves, from whatever runs there are."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import GREY, PALETTE, STYLE, log_axis
from benchmarks.tables import number, with_error
from benchmarks.trained_estimators import TRAINED
from experiments.files import save_figure, write_atomically, write_json
from experiments.runs import CONFIG, METRICS, read_metrics
from jaxlab.estimators import ESTIMATORS

TIMINGS = "seconds_a_step.json"
#: What the differences are to: the estimator that everybody has.
REFERENCE = "leave_one_out"
#: As many as there are estimators: told apart by eyes of every kind, the last ones by their dashes too.
COLORS = (*PALETTE, "#8C6D31", "#7F3C8D", "#999999")
METRIC_NAMES = ("train_elbo", "validation_elbo", "test_bound", "variance")


@dataclass(frozen=True)
class Curve:
    """One estimator's metrics: for each name the steps, and an array [steps, seeds]."""

    name: str
    evaluations: int
    seeds: tuple[int, ...]
    metrics: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def label(self) -> str:
        """Estimator and evaluations of f in one word."""
        return f"{self.name}-{self.evaluations}"

    def at(self, metric: str, step: int) -> np.ndarray | None:
        """The values of the seeds at one step, if it was measured there."""
        steps, values = self.metrics.get(metric, (np.zeros(0), np.zeros((0, 0))))
        (where,) = np.nonzero(steps == step)
        return values[where[0]] if where.size else None


def in_words(measured: dict[str, Any]) -> str:
    """Means over the seeds, in one line."""
    return ", ".join(f"{name} {float(np.mean(value)):.5g}" for name, value in measured.items())


def save_timings(directory: Path, seconds: dict[str, float], num_seeds: int) -> None:
    """Keeps seconds a step, and with how many seeds at once; earlier timings of other estimators stay."""
    path = directory / TIMINGS
    known = json.loads(path.read_text())["seconds"] if path.exists() else {}
    content = {"seeds": num_seeds, "seconds": known | seconds}
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def curves_in(directory: Path) -> list[Curve]:
    """The curves of all runs below a directory, in the order of the table of estimators."""
    groups: dict[tuple[str, int], list[tuple[int, list[dict[str, Any]]]]] = {}
    for path in sorted(directory.glob(f"*/seeds-*/{METRICS}")):
        config = json.loads((path.parent / CONFIG).read_text())
        key = config["recipe"]["estimator"], config["recipe"]["evaluations"]
        groups.setdefault(key, []).append((config["first_seed"], read_metrics(path.parent)))
    curves = [curve_of(*key, sorted(runs, key=lambda run: run[0])) for key, runs in groups.items()]
    order = list(TRAINED)
    curves = [curve for curve in curves if "train_elbo" in curve.metrics and curve.name in order]
    return sorted(curves, key=lambda curve: (curve.evaluations > 2, order.index(curve.name), curve.evaluations))


def curve_of(name: str, evaluations: int, runs: Sequence[tuple[int, list[dict[str, Any]]]]) -> Curve:
    """The runs of several groups of seeds as one curve, over the steps that all of them have."""
    metrics = {}
    seeds: list[int] = []
    for metric in METRIC_NAMES:
        by_step = [{line["step"]: line[metric] for line in lines if metric in line} for _, lines in runs]
        steps = sorted(set.intersection(*(set(one) for one in by_step)))
        if steps:
            values = [[np.nan if v is None else v for one in by_step for v in one[step]] for step in steps]
            metrics[metric] = np.array(steps), np.array(values, float)
    for first_seed, lines in runs:
        seeds += range(first_seed, first_seed + len(lines[0]["train_loss"]) if lines else first_seed)
    return Curve(name, evaluations, tuple(seeds), metrics)


def mean_and_error(values: np.ndarray) -> tuple[float, float | None]:
    """The mean over seeds and its standard error, which one seed does not have."""
    error = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else None
    return float(values.mean()), error


def results_of(curves: Sequence[Curve], timings: dict[str, float]) -> list[dict[str, Any]]:
    """One row for each estimator and each step at which all was measured."""
    reference = {curve.evaluations: curve for curve in curves if curve.name == REFERENCE}
    rows = []
    for step in sorted({int(step) for curve in curves for step in curve.metrics.get("test_bound", ((), ()))[0]}):
        for curve in curves:
            if curve.at("test_bound", step) is None:
                continue
            row: dict[str, Any] = {
                "step": step,
                "estimator": curve.name,
                "options": TRAINED[curve.name].options,
                "evaluations": curve.evaluations,
                "unbiased": ESTIMATORS[curve.name].unbiased_gradient,
                "seeds": list(curve.seeds),
                "seconds": timings.get(curve.label),
            }
            for metric in METRIC_NAMES:
                values = curve.at(metric, step)
                assert values is not None
                row[metric], row[f"{metric}_standard_error"] = mean_and_error(values)
            other = reference.get(curve.evaluations)
            if other is not None and curve is not other and other.at("train_elbo", step) is not None:
                differences = paired(curve, other, step)
                row["train_elbo_difference"], row["train_elbo_difference_standard_error"] = mean_and_error(differences)
            rows.append(row)
    return rows


def paired(curve: Curve, other: Curve, step: int) -> np.ndarray:
    """Differences of the train ELBO, seed by seed: the same initial weights, images, order and pixels."""
    common = [seed for seed in curve.seeds if seed in other.seeds]
    ours, theirs = curve.at("train_elbo", step), other.at("train_elbo", step)
    assert ours is not None
    assert theirs is not None
    return ours[[curve.seeds.index(s) for s in common]] - theirs[[other.seeds.index(s) for s in common]]


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of one step as a table in Markdown."""
    heads = (
        "estimator",
        "f",
        "unbiased",
        "seeds",
        "train ELBO",
        f"less {REFERENCE}",
        "test bound",
        "variance",
        "ms a step",
    )
    lines = ["| " + " | ".join(heads) + " |", "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]

    def cell(row: dict[str, Any], name: str) -> str:
        value, error = row.get(name), row.get(f"{name}_standard_error")
        if value is None:
            return "-"
        return number(value, 5) if error is None else with_error(value, error)

    for row in rows:
        cells = (
            f"`{row['estimator']}`{', ' * bool(row['options'])}{row['options']}",
            str(row["evaluations"]),
            "yes" if row["unbiased"] else "no",
            str(len(row["seeds"])),
            *(cell(row, name) for name in ("train_elbo", "train_elbo_difference", "test_bound")),
            number(row["variance"]),
            "-" if row["seconds"] is None else number(1e3 * row["seconds"]),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def legend_of(num_seeds_timed: int) -> str:
    """What stands in the columns of the table."""
    timed = f" ms a step: of {num_seeds_timed} seeds together, on the machine that trained them." * bool(
        num_seeds_timed
    )
    return (
        "Nats; ± is one standard error over seeds. f: evaluations of f a step and image. less leave_one_out: the"
        " difference of the train ELBO to it at as many evaluations, seed by seed. variance: of the encoder's gradient"
        f" at frozen parameters.{timed}"
    )


def write(directory: Path, command: str) -> list[Path]:
    """Writes results.json, table.md and the figures of the runs below ``directory``; nothing if there are none."""
    curves = curves_in(directory)
    if not curves:
        return []
    path = directory / TIMINGS
    timings = json.loads(path.read_text()) if path.exists() else {"seeds": 0, "seconds": {}}
    rows = results_of(curves, timings["seconds"])
    results = {"command": command, "timed_with_seeds": timings["seeds"], "rows": rows}
    write_json(directory / "results.json", results)
    tables = []
    for step in sorted({row["step"] for row in rows}):
        tables.append(f"### {step:,} steps\n\n{table_of([row for row in rows if row['step'] == step])}\n")
    write_atomically(
        directory / "table.md", "\n".join([f"`{command}`\n", f"{legend_of(timings['seeds'])}\n", *tables]).encode()
    )
    written = [directory / "results.json", directory / "table.md"]
    # The labels beside the axes need a place of their own, which the layout engine does not know of.
    with matplotlib.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        for name, figure in figures_of(curves, timings["seconds"], directory.name).items():
            save_figure(directory / name, figure)
            written.append(directory / name)
    return written


def figures_of(curves: Sequence[Curve], timings: dict[str, float], title: str) -> dict[str, Figure]:
    """The figures by file name; those of time only for what was timed."""
    title = re.sub("_", " ", title.replace("-", ", "))
    figures = {"elbo_against_steps.png": elbo_figure(curves, None, title)}
    timed = [curve for curve in curves if curve.label in timings]
    if timed:
        figures["elbo_against_time.png"] = elbo_figure(timed, timings, title)
    measured = [curve for curve in curves if "variance" in curve.metrics]
    if measured:
        figures["variance_against_steps.png"] = variance_figure(measured, title)
    return figures


def panels(curves: Sequence[Curve], rows: int) -> tuple[Figure, np.ndarray, list[list[Curve]]]:
    """A figure with a column for two evaluations a step and one for three, where there are both."""
    columns = [[c for c in curves if c.evaluations <= 2], [c for c in curves if c.evaluations > 2]]
    columns = [column for column in columns if column]
    width, height = 7.0 * len(columns), 1.4 + 3.7 * rows
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(rows, len(columns), squeeze=False, sharex=True, sharey="row")
    # Room for the labels at the ends of the lines, of two inches on the right of each panel.
    panel = (width - 0.9) / len(columns) - 2
    right, top, bottom = 1 - 2 / width, 1 - 0.8 / height, 0.85 / height
    figure.subplots_adjust(left=0.9 / width, right=right, top=top, bottom=bottom, wspace=2 / panel, hspace=0.12)
    for column, own in enumerate(columns):
        counts = sorted({curve.evaluations for curve in own})
        axes[0, column].set_title(f"{' or '.join(map(str, counts))} evaluations of f a step")
    return figure, axes, columns


def color_of(curve: Curve) -> str:
    """One colour an estimator, in every figure."""
    return COLORS[list(TRAINED).index(curve.name) % len(COLORS)]


def style_of(curve: Curve) -> dict[str, Any]:
    """Biased estimators are dashed."""
    unbiased = ESTIMATORS[curve.name].unbiased_gradient
    return {"color": color_of(curve), "linewidth": 1.6, "linestyle": "-" if unbiased else (0, (4, 1.5))}


def label_ends(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Writes each label beside the end of its line; those that would overlap move apart, joined by a thin line."""
    pixels = [(axes.transData.transform((x, y)), text, color) for x, y, text, color in ends]
    bottom, top = axes.bbox.y0, axes.bbox.y1
    # A line that ends outside of the limits leaves the axes, and is named, at their edge.
    pixels = [((x, min(max(y, bottom), top)), text, color) for (x, y), text, color in pixels]
    pixels.sort(key=lambda entry: entry[0][1])
    right = max(x for (x, _), _, _ in pixels)
    gap = 15 * axes.figure.dpi / 100
    heights = [max(y, bottom + gap / 2) for (_, y), _, _ in pixels]
    for _ in range(200):  # neighbours push each other
        for i in range(len(heights) - 1):
            overlap = gap - (heights[i + 1] - heights[i])
            if overlap > 0:
                heights[i] -= overlap / 2
                heights[i + 1] += overlap / 2
        shift = max(0.0, bottom - heights[0])
        heights = [height + shift for height in heights]
    back = axes.transData.inverted()
    for ((x, y), text, color), height in zip(pixels, heights, strict=True):
        end, place = (back.transform(point).tolist() for point in ((x, y), (right + 14, height)))
        axes.annotate(
            text,
            tuple(end),
            tuple(place),
            color=color,
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        )


def draw_lines(axes: Axes, curves: Sequence[Curve], lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Means as lines, with a band of one standard error; labels are written when the limits are final."""
    for curve, (x, values) in zip(curves, lines, strict=True):
        mean = values.mean(1)
        axes.plot(x, mean, **style_of(curve))
        if values.shape[1] > 1:
            error = values.std(1, ddof=1) / np.sqrt(values.shape[1])
            axes.fill_between(x, mean - error, mean + error, color=color_of(curve), alpha=0.18, linewidth=0)


def labels_of(curves: Sequence[Curve], lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Any]:
    """Where the lines end, what they are called, and their colours."""
    return [
        (float(x[-1]), float(values[-1].mean()), curve.name, color_of(curve))
        for curve, (x, values) in zip(curves, lines, strict=True)
    ]


def elbo_figure(curves: Sequence[Curve], timings: dict[str, float] | None, title: str) -> Figure:
    """The train ELBO against steps or seconds; below, the difference to the reference at the same step or time."""
    figure, axes, columns = panels(curves, rows=2)
    everything, late, places, labels = [], [], [], []
    for column, own in enumerate(columns):
        lines = []
        for curve in own:
            steps, values = curve.metrics["train_elbo"]
            lines.append((steps * (timings[curve.label] if timings else 1.0), values))
        draw_lines(axes[0, column], own, lines)
        everything += [values.mean(1) for _, values in lines]
        places += [place for x, _ in lines for place in x]
        labels.append((axes[0, column], labels_of(own, lines)))
        references = [i for i, curve in enumerate(own) if curve.name == REFERENCE]
        if references:
            x, values = lines[references[0]]
            level = values.mean(1)
            differences = []
            for curve_x, curve_values in lines:
                inside = (curve_x >= x[0]) & (curve_x <= x[-1])
                base = np.interp(curve_x[inside], x, level)
                differences.append((curve_x[inside], curve_values[inside] - base[:, None]))
            shown = [i for i, (inside_x, _) in enumerate(differences) if inside_x.size]
            own, differences = [own[i] for i in shown], [differences[i] for i in shown]
            draw_lines(axes[1, column], own, differences)
            labels.append((axes[1, column], labels_of(own, differences)))
            # But for the first two, where all of them are still far from anything.
            late += [values[min(2, len(values) - 1) :].mean(1) for _, values in differences]
        axes[1, column].set_xlabel("seconds of training (all seeds together)" if timings else "steps")
    best = max(values.max() for values in everything)
    axes[0, 0].set_ylim(best - 30, best + 1)
    for one in axes[1]:
        log_axis(one, "x", places, margin=1.1)
    if late:
        low, high = min(float(one.min()) for one in late), max(float(one.max()) for one in late)
        axes[1, 0].set_ylim(max(low, -15) - 0.5, min(high, 15) + 0.5)
    axes[0, 0].set_ylabel("train ELBO (nats)")
    axes[1, 0].set_ylabel(f"difference to {REFERENCE} (nats)")
    finish(figure, f"{title}: train ELBO", labels)
    return figure


def variance_figure(curves: Sequence[Curve], title: str) -> Figure:
    """The variance of the encoder's gradient, with frozen parameters, along the training."""
    figure, axes, columns = panels(curves, rows=1)
    labels, everything, steps = [], [], []
    for column, own in enumerate(columns):
        lines = [curve.metrics["variance"] for curve in own]
        draw_lines(axes[0, column], own, lines)
        labels.append((axes[0, column], labels_of(own, lines)))
        everything += [value for _, values in lines for value in values.mean(1)]
        steps += [step for x, _ in lines for step in x]
        axes[0, column].set_xlabel("steps")
    for one in axes[0]:
        log_axis(one, "x", steps, margin=1.1)
        log_axis(one, "y", everything)
    axes[0, 0].set_ylabel("gradient variance")
    finish(figure, f"{title}: variance of the encoder's gradient at frozen parameters", labels)
    return figure


def finish(figure: Figure, title: str, labels: list[Any]) -> None:
    """Title, note and labels, once the axes have their final places."""
    width, height = figure.get_size_inches()
    figure.text(0.15 / width, 1 - 0.3 / height, title, fontsize=13)
    note = "Solid: unbiased. Dashed: biased. Bands: one standard error over seeds."
    figure.text(0.15 / width, 0.12 / height, note, fontsize=9, color=GREY)
    figure.draw_without_rendering()
    for axes, ends in labels:
        label_ends(axes, ends)
