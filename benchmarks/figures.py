"""Figures of the measurements: variance against cost, bias against noise, and both against temperature."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.labels import Label, Points, beside, place
from benchmarks.tables import number
from experiments.files import save_figure

MAIN_PROBLEM = "vae_trained"
#: Okabe and Ito's palette without its yellow, which is too light for text: told apart by eyes of every kind.
PALETTE = ("#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#0072B2")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
GREY = "#777777"
STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titlepad": 12,
    "figure.figsize": (9, 5.6),
    "figure.constrained_layout.use": True,
}

Row = dict[str, Any]
Looks = dict[str, dict[str, Any]]


def draw(results: dict[str, Any], directory: Path) -> list[Path]:
    """Draws the figures of the trained auto-encoder, or else of the last problem that was measured."""
    names = [problem["name"] for problem in results["problems"]]
    name = MAIN_PROBLEM if MAIN_PROBLEM in names else names[-1]
    title = results["problems"][names.index(name)]["title"]
    # What is not a number (JSON has null for it) has no place in a figure; in the table it is a contradiction.
    rows = [row for row in results["rows"] if row["problem"] == name and None not in (row["z"], row["variance"])]
    figures = {
        "variance_against_time.png": variance_against_time,
        "bias_against_noise.png": bias_against_noise,
        "against_temperature.png": against_temperature,
    }
    paths = []
    with matplotlib.rc_context(STYLE):
        for file_name, make in figures.items():
            figure = make(title, rows, looks_of(rows))
            if figure is not None:
                paths.append(directory / file_name)
                save_figure(paths[-1], figure)
    return paths


def looks_of(rows: Sequence[Row]) -> Looks:
    """Colour and marker of each estimator; the markers of biased ones are hollow."""
    biased = {row["estimator"]: not row["unbiased"] for row in rows}
    looks = {}
    for i, name in enumerate(biased):
        color = PALETTE[i % len(PALETTE)]
        face = "white" if biased[name] else color
        looks[name] = {"color": color, "marker": MARKERS[i % len(MARKERS)], "markerfacecolor": face}
    return looks


def by_temperature(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each estimator that has a temperature."""
    series: dict[str, list[Row]] = {}
    for row in rows:
        if "temperature" in row["options"]:
            series.setdefault(row["estimator"], []).append(row)
    return series


def log_axis(axes: Axes, which: str, values: Sequence[float], margin: float = 1.6) -> None:
    """A logarithmic axis over the values, whose ticks are plain numbers."""
    low, high = min(values) / margin, max(values) * margin
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    # Over few decades more than powers of ten are marked, else there would be one or two numbers on the axis.
    decades = math.log10(high / low)
    # Large numbers are wide: along x fewer of them fit.
    roomy = 2.0 if which == "x" and high > 1e5 else 4.0
    digits = (1.0,) if decades > roomy else (1.0, 2.0, 5.0) if decades > 1 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=digits, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())


def plain(value: float) -> str:
    """A round number, as short as it can be."""
    if value >= 1e6 or value < 1e-5:
        return f"{value:.0e}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.6f}".rstrip("0").rstrip(".")


def plot_points(axes: Axes, rows: Sequence[Row], points: Points, looks: Looks, lines: Sequence[Points] = ()) -> None:
    """Draws the rows as points, those of one estimator at several temperatures joined, and writes their labels.

    Args:
      axes: with scales and limits final.
      rows: what the points stand for.
      points: one for each row.
      looks: of the estimators.
      lines: drawn already, which labels should not cover.
    """
    singles, temperatures, series, joined = [], [], [], []
    for name in dict.fromkeys(row["estimator"] for row in rows):
        color = looks[name]["color"]
        own = [(row, point) for row, point in zip(rows, points, strict=True) if row["estimator"] == name]
        axes.plot(*zip(*(point for _, point in own), strict=True), ls="", ms=9, mew=1.6, zorder=3, **looks[name])
        if "temperature" in own[0][0]["options"]:
            joined.append([point for _, point in own])
            axes.plot(*zip(*joined[-1], strict=True), color=color, linewidth=1, zorder=1)
            series.append(Label(joined[-1], name, color))
            temperatures += [Label([point], f"{row['options']['temperature']:g}", color, 8.5) for row, point in own]
        else:
            singles += [Label([point], row["label"], color) for row, point in own]
    place(axes, singles + temperatures + series, points, [*lines, *joined])


def note(figure: Figure, text: str) -> None:
    """A line below the axes."""
    figure.supxlabel(textwrap.fill(text, 125), fontsize=9, color="#444444", x=0.01, horizontalalignment="left")


def variance_against_time(title: str, rows: Sequence[Row], looks: Looks) -> Figure | None:
    """What a gradient costs against how noisy it is; along a grey line, one is traded for the other evenly."""
    rows = [row for row in rows if row["relative_time"] is not None]
    noisy = [row for row in rows if row["variance"] > 0]
    if not noisy:
        return None
    points = [(row["relative_time"], row["relative_variance"]) for row in noisy]
    figure = Figure()
    axes = figure.subplots()
    log_axis(axes, "x", [x for x, _ in points], margin=1.7)
    log_axis(axes, "y", [y for _, y in points], margin=2.5)
    ends = np.array(axes.get_xlim())
    bottom, top = axes.get_ylim()
    for power in range(math.floor(math.log10(bottom * ends[0])), math.ceil(math.log10(top * ends[1])) + 1):
        axes.plot(ends, 10.0**power / ends, color="#DDDDDD", linewidth=0.8, zorder=0)
    axes.set_xlabel("time of one gradient step ÷ that of reinforce")
    axes.set_ylabel("variance ÷ |exact gradient|²")
    axes.set_title(f"Noise against time\n{title}")
    silent = [f"{row['label']} ({number(row['relative_time'])} times the time)" for row in rows if row not in noisy]
    left_out = f" Without variance, so not shown: {', '.join(silent)}." if silent else ""
    words = (
        "Filled: unbiased. Hollow: biased; small numbers are temperatures. Along a grey line, variance · time is equal."
    )
    note(figure, words + left_out)
    plot_points(axes, noisy, points, looks)
    return figure


def bias_against_noise(title: str, rows: Sequence[Row], looks: Looks) -> Figure | None:
    """Bias against noise, both in units of the exact gradient; unbiased estimators with the bound measured here."""
    noisy = [row for row in rows if row["variance"] > 0]
    if not noisy:
        return None
    errors = [2 * row["relative_bias_standard_error"] for row in noisy]
    seen = [not row["unbiased"] and abs(row["z"]) >= 2 for row in noisy]
    points = [
        # Where no bias is seen there is a bound: it could not be larger and stay unseen.
        (abs(row["relative_bias"]) + (0 if s else error), math.sqrt(row["relative_variance"]))
        for row, s, error in zip(noisy, seen, errors, strict=True)
    ]
    figure = Figure()
    axes = figure.subplots()
    log_axis(axes, "x", [x for x, _ in points], margin=3)
    log_axis(axes, "y", [y for _, y in points])
    lines = []
    for row, s, error, (x, y) in zip(noisy, seen, errors, points, strict=True):
        color = looks[row["estimator"]]["color"]
        end = (x - error, y) if s else (x / 1.22, y)
        lines.append([end, (x + error if s else x, y)])
        if s:
            axes.plot(*zip(*lines[-1], strict=True), color=color, linewidth=1, zorder=2)
        else:
            axes.annotate("", end, (x, y), arrowprops={"arrowstyle": "->", "color": color, "linewidth": 1.2}, zorder=2)
    axes.set_xlabel("bias ÷ |exact gradient|")
    axes.set_ylabel("standard deviation ÷ |exact gradient|")
    axes.set_title(f"Bias against noise\n{title}")
    words = "Filled: unbiased. Hollow: biased; bars are two standard errors, small numbers temperatures."
    note(figure, words + " An arrow: no bias is seen; if there is one, it is below this point (95 %).")
    plot_points(axes, noisy, points, looks, lines)
    return figure


def against_temperature(title: str, rows: Sequence[Row], looks: Looks) -> Figure | None:
    """Bias and variance of relaxations by temperature; the variance of the others for comparison."""
    series = by_temperature(rows)
    if not series:
        return None
    others = [row for row in rows if "temperature" not in row["options"] and row["variance"] > 0]
    figure = Figure()
    panels = figure.subplots(1, 2)
    temperatures = sorted({row["options"]["temperature"] for same in series.values() for row in same})
    for axes, quantity in zip(panels, ("relative_bias", "relative_variance"), strict=True):
        log_axis(axes, "x", temperatures, margin=1.3)
        axes.set_xticks(temperatures, [f"{temperature:g}" for temperature in temperatures])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("temperature")
        for name, same in series.items():
            points = [(row["options"]["temperature"], row[quantity]) for row in same]
            errors = [2 * row["relative_bias_standard_error"] * (quantity == "relative_bias") for row in same]
            axes.errorbar(*zip(*points, strict=True), errors, ms=8, mew=1.6, linewidth=1.5, **looks[name])
    panels[0].axhline(0, color=GREY, linewidth=1)
    panels[0].set_ylabel("bias ÷ |exact gradient|")
    panels[1].set_ylabel("variance ÷ |exact gradient|²")
    shown = [row["relative_variance"] for same in (others, *series.values()) for row in same]
    log_axis(panels[1], "y", shown, margin=1.5)
    figure.suptitle(f"Bias and variance against temperature\n{title}", x=0.01, ha="left", fontsize=12)
    note(figure, "Bars: two standard errors. Dashed levels: estimators without a temperature.")
    levels = [
        Label([(1.0, row["relative_variance"])], row["label"], looks[row["estimator"]]["color"]) for row in others
    ]
    for level in levels:
        panels[1].axhline(level.points[0][1], color=level.color, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    beside(panels[1], levels, size=9)
    for axes, quantity in zip(panels, ("relative_bias", "relative_variance"), strict=True):
        lines = [[(row["options"]["temperature"], row[quantity]) for row in same] for same in series.values()]
        names = [Label(line, name, looks[name]["color"]) for name, line in zip(series, lines, strict=True)]
        place(axes, names, [point for line in lines for point in line], lines)
    return figure
