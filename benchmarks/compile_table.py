"""The compile table in Markdown: all of it, and what the README shows."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp

HEAD = (
    "| program | size | flops | bytes | temporary | collectives | kernels in a loop | roofline | bound | compiled in |"
)
RULE = "| --- | --- | ---: | ---: | ---: | --- | --- | ---: | --- | ---: |"
#: Memory beside arguments and results that is worth a second look: so many times as much, and so many bytes.
MUCH, MUCH_BYTES = 8, 2**26
#: What the README shows of the large sizes.
TELLING = ("nearest_code 512", "nearest_code 8,192", "rank 10,000", "dtw 512 x 512", "mmd 2,048")
README_TARGETS = ("TPU v5e", "TPU v5e x 4", "NVIDIA H100", "NVIDIA H100 x 8")


def unit(value: float, names: tuple[str, ...], step: float = 1e3) -> str:
    """A number with the unit that leaves one to three digits in front of the point."""
    place = 0
    while value >= step and place + 1 < len(names):
        value, place = value / step, place + 1
    return f"{value:.3g} {names[place]}"


def flops_of(value: float) -> str:
    """Floating-point operations."""
    return unit(value, ("", "k", "M", "G", "T")).strip()


def bytes_of(value: float) -> str:
    """Bytes in powers of 1,024."""
    return unit(value, ("B", "KiB", "MiB", "GiB"), 1024)


def seconds_of(value: float | None) -> str:
    """A time, from the nanosecond up."""
    return "-" if value is None else unit(value * 1e9, ("ns", "µs", "ms", "s"))


def collectives_of(row: dict[str, Any]) -> str:
    """How many of which kind."""
    return ", ".join(f"{number} {kind}" for kind, number in row["collectives"].items()) or "-"


def mark(row: dict[str, Any]) -> str:
    """Of a program that compiles with other options than the default ones alone."""
    return " (cuBLAS)" if "options" in row else ""


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    if "error" in row:
        return [row["name"], row["size"], f"does not compile: {row['error']}", *[""] * 7]
    loops = ", ".join(str(number) for number in row["kernels"]) or "-"
    costs = [flops_of(row["flops"]), bytes_of(row["bytes"]), bytes_of(row["temporary bytes"])]
    bound = [seconds_of(row.get("roofline seconds")), row.get("bound", "-")]
    seconds = f"{row['compile seconds']:.1f} s"
    return [row["name"] + mark(row), row["size"], *costs, collectives_of(row), loops, *bound, seconds]


def shapes_of(arrays: list[Any]) -> str:
    """The shapes of arrays but keys, equal ones that follow each other counted."""
    names = [f"{x.dtype}{list(x.shape)}" for x in arrays if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    runs = [(name, len(list(run))) for name, run in itertools.groupby(names)]
    return ", ".join(name if number == 1 else f"{number} x {name}" for name, number in runs)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows in Markdown."""
    return "\n".join([HEAD, RULE, *(f"| {' | '.join(cells(row))} |" for row in rows)])


def in_words(row: dict[str, Any]) -> str:
    """A row for a terminal."""
    return f"{row['target']}: " + "; ".join(cell for cell in cells(row) if cell)


def law_table(costs: dict[str, Any]) -> str:
    """The rows of the compile law on one platform."""
    lines = ["| function | flops | bytes | temporary | collectives |", "| --- | ---: | ---: | ---: | --- |"]
    for label, row in sorted(costs.items()):
        numbers = [flops_of(row["flops"]), bytes_of(row["bytes"]), bytes_of(row["temporary bytes"])]
        lines.append(f"| {' | '.join([f'`{label}`', *numbers, collectives_of(row)])} |")
    return "\n".join(lines)


def most_memory(rows: list[dict[str, Any]]) -> str:
    """The rows with far more temporary memory than arguments and results, those with the most first, by target."""
    lines = ["| program | arguments | arguments and results | temporary |", "| --- | --- | ---: | --- |"]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "error" not in row and row["temporary bytes"] > max(MUCH_BYTES, MUCH * row["argument and result bytes"]):
            found.setdefault(row["name"], []).append(row)
    ordered = sorted(found.values(), key=lambda rows: -max(row["temporary bytes"] for row in rows))
    for of_name in ordered:
        first = of_name[0]
        temporary = "; ".join(f"{bytes_of(row['temporary bytes'])} on {row['target']}" for row in of_name)
        given = bytes_of(first["argument and result bytes"])
        lines.append(f"| {first['name']} | {first.get('arguments', '-')} | {given} | {temporary} |")
    return "\n".join(lines)


def everything(results: dict[str, Any]) -> str:
    """All rows, target by target, then those of the law; before them, of rows with their shapes, what takes most."""
    parts = [
        "# Programs as they are compiled\n\nWritten by `python -m benchmarks.compile`, whose docstring says what the"
        f" columns are ({', '.join(results['compilers'])}). Costs are those of one device."
    ]
    if any("arguments" in row for row in results["rows"]):
        limit = f"more than {MUCH} times as much, and {bytes_of(MUCH_BYTES)}"
        parts += [f"## Most temporary memory beside arguments and results: {limit}", most_memory(results["rows"])]
        parts += ["Of the functions below the large sizes; the small ones are in the JSON file beside this one."]
    for target in dict.fromkeys(row["target"] for row in results["rows"]):
        shown = [row for row in results["rows"] if row["target"] == target]
        shown = [row for row in shown if row["size"] == "large" or "arguments" not in row]
        parts += [f"## {target}", table(shown)]
    for platform, law in results["law"].items():
        title = f"## The rows of the compile law: {platform} x {law['devices']}"
        parts += [title, f"Value and gradient of {law['batch']} examples.", law_table(law["costs"])]
    return "\n\n".join(parts) + "\n"


def readme_section(results: dict[str, Any]) -> str:
    """The training steps at their large size and the most telling functions."""
    shown = [row for row in results["rows"] if row["size"] == "large" and "error" not in row]
    steps = {row["name"] for row in results["rows"] if row["size"] == "small"}
    lines = [
        "| program | on | flops | bytes | temporary | collectives | kernels in a loop | roofline | bound |",
        "| --- | --- | ---: | ---: | ---: | --- | --- | ---: | --- |",
    ]
    for name in dict.fromkeys(row["name"] for row in shown):
        if name in steps or name in TELLING:
            of_name = {row["target"]: row for row in shown if row["name"] == name}
            for place, target in enumerate(target for target in README_TARGETS if target in of_name):
                row = of_name[target]
                lines.append(f"| {' | '.join(['' if place else name, target + mark(row), *cells(row)[2:9]])} |")
    intro = (
        f"Compiled with {', '.join(results['compilers'])} for devices that are not here (`python -m"
        " benchmarks.compile`; all rows in `benchmarks/results/compile.md`, and by `--every-function` each public"
        " function at a small and a large size in `compile_functions.md`): costs of one device, loops as often as they"
        " turn. The roofline is the time that the chip takes at its published speed for these flops or these bytes,"
        " whichever is longer (`benchmarks/chips.py`). Marked programs compile with all products left to cuBLAS alone,"
        " where no GPU is at hand."
    )
    return "\n\n".join([intro, "\n".join(lines)])
