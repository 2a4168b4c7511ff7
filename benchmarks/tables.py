"""The measurements as tables: on the terminal, and in Markdown."""

import math
from collections.abc import Callable
from typing import Any

from rich import box
from rich.table import Table

from jaxlab.estimators import ESTIMATORS

#: The sign of multiplication, which linters take for a letter.
TIMES = "\N{MULTIPLICATION SIGN}"


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many significant digits, powers of ten only where they are shorter."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        places = max(0, digits - 1 - exponent_of(value, digits))
        return f"{float(f'{value:.{digits}g}'):,.{places}f}"
    return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def exponent_of(value: float, digits: int) -> int:
    """The power of ten of the first digit, after rounding to so many digits."""
    return int(f"{value:.{digits - 1}e}".split("e")[1])


def with_error(value: float, error: float) -> str:
    """A value and its standard error: two digits of the error, and the value to the same place."""
    largest = max(abs(value), error)
    if error == 0 or not 1e-3 <= largest < math.inf:  # not for NaN either
        return f"{number(value)} ± {number(error)}"
    place = exponent_of(error, 2) - 1
    rounded = (f"{round(x, -place):,.{max(0, -place)}f}" for x in (value, error))
    return " ± ".join(rounded) if place > -6 else f"{number(value)} ± {number(error, 1)}"


def times(value: float | None) -> str:
    """A ratio to plain ``reinforce``."""
    return "-" if value is None else f"{number(value)} {TIMES}"


def microseconds(seconds: float | None) -> str:
    """A time."""
    return "-" if seconds is None else f"{number(seconds * 1e6)} µs"


#: Columns of a table: what stands above, and what stands in the row of an estimator.
COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("estimator", lambda row: row["label"]),
    ("f / f'", lambda row: f"{row['evaluations']} / {row['derivative_evaluations']}"),
    ("relative bias", lambda row: with_error(row["relative_bias"], row["relative_bias_standard_error"])),
    ("z", lambda row: f"{row['z']:.1f}"),
    ("verdict", lambda row: row["verdict"]),
    ("variance", lambda row: number(row["variance"])),
    ("per coord.", lambda row: number(row["variance_per_coordinate"])),
    ("MSE", lambda row: with_error(row["mean_squared_error"], row["mean_squared_error_standard_error"])),
    ("cosine", lambda row: f"{row['cosine']:.3f}"),
    ("SNR", lambda row: number(row["signal_to_noise"])),
    ("time", lambda row: microseconds(row["seconds"])),
    ("", lambda row: times(row["relative_time"])),
    (f"var {TIMES} time", lambda row: times(row["relative_variance_time"])),
)


#: What a narrow terminal does without (it is all in the JSON file), and what is not narrow.
LEFT_OUT = ("f / f'", "per coord.", "MSE", "cosine", "SNR", "time")
FULL_WIDTH = 185


def table_of(problem: dict[str, Any], rows: list[dict[str, Any]], width: int) -> Table:
    """The table of one problem for a terminal of so many columns."""
    size = f"{problem['size']:,} parameter{'s' * (problem['size'] > 1)}"
    title = f"[bold]{problem['name']}[/]: {problem['title']}; {size}, |gradient| {number(problem['gradient_norm'], 3)}"
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = COLUMNS if width >= FULL_WIDTH else [column for column in COLUMNS if column[0] not in LEFT_OUT]
    for head, _ in columns:
        table.add_column(head, justify="left" if head in ("estimator", "verdict") else "right", overflow="fold")
    for row in rows:
        style = {"C": "bold white on red", "b": "yellow"}.get(row["verdict"][0], "")
        table.add_row(*(cell(row) for _, cell in columns), style=style)
    return table


def markdown_of(rows: list[dict[str, Any]]) -> str:
    """A table of the README: one problem, what each estimator takes and claims, and the columns that matter most."""
    heads = ("estimator", "takes", "unbiased", "orders", "f / f'", "bias ÷ gradient", "z", "variance", "time")
    heads = (*heads, f"variance {TIMES} time")
    lines = ["| " + " | ".join(heads) + " |", "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        label, _, options = row["label"].partition(", ")
        claims = ESTIMATORS[row["estimator"]]
        cells = (
            f"`{label}`{', ' * bool(options)}{options}",
            claims.needs.__name__,
            "yes" if row["unbiased"] else "no",
            "all" if claims.derivative_order == math.inf else f"{claims.derivative_order}",
            f"{row['evaluations']:,} / {row['derivative_evaluations']:,}",
            with_error(row["relative_bias"], row["relative_bias_standard_error"]),
            f"{row['z']:.1f}",
            number(row["variance"]),
            times(row["relative_time"]),
            times(row["relative_variance_time"]) if row["variance"] > 0 else "0",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
