"""Every training step, and every public function whose cost grows, compiled for CPU, TPU and GPU: the compile table.

    python -m benchmarks.compile                     # all rows; those whose program has not changed are kept
    python -m benchmarks.compile --only ordered      # rows whose name contains this
    python -m benchmarks.compile --targets "TPU v5e" "NVIDIA H100 x 8"
    python -m benchmarks.compile --every-function    # all rows of the compile law, at a small and a large size

It runs where the compilers are (``.venv-compile``, see ``make compile``), and needs no hardware. Of each program, for
one device: flops, bytes read and written, temporary memory, collectives, kernels in each loop, the time that the
chip's published speed leaves (``benchmarks.chips``), and whether arithmetic or memory sets it. Results go to
``compile.json`` and ``compile.md`` (``compile_functions.json`` and ``.md`` of ``--every-function``), row after row, and
``benchmarks.report`` puts the most telling ones of the former into README.md.

The functions at the size of the compile law (``tests/test_compile.py``) are not compiled again: their costs are taken
over from what that law leaves in ``build``, so that their rows stand in one place, and it is run first (``make
compile``); it compiles those alone that have changed since. A row that takes half as much again of memory or
collectives as it did, by the same compiler, is said so in red, and the command ends in status 1;
``tests/test_compile_budgets.py`` holds a few rows to that.

Where no GPU is at hand to try tiles on, some programs compile for an H100 with all products left to cuBLAS alone; their
rows are marked.

Flops are those of the program as it is traced, bytes those of the program as it is compiled; both count a loop as often
as it turns, if that is known before it runs. Bytes are upper bounds: those of a TPU's program include what stays in its
vector memory, and a fusion that slices an array after a reshape counts all of it. For a TPU the roofline takes in their
place those of arguments and results, and of temporary memory twice, written and read.

What it says of hand-written kernels: nearest codes on a TPU keep no scores in memory (temporary memory below 0.2 MiB),
so products bound them and nothing is left to fuse. On an H100 the compiler has the scores of a chunk written and read
("without kernel"), for which there is a kernel (``jaxlab/quantize/_fused.py``). A step of an ordered LSTM starts a
dozen kernels where two would do; ``benchmarks.platform_speed`` found it at 1.3 and 1.5 times the bare products,
cuBLAS's, which a kernel would still have to do.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import rich
import tyro

from benchmarks import compile_table, compiled_rows, compilers, hlo
from benchmarks.chips import CHIPS, roofline
from benchmarks.compiled_functions import FUNCTIONS
from benchmarks.compiled_steps import STEPS
from experiments.files import errors_told, write_atomically, write_json

#: Platforms and how many of their devices.
TARGETS = {
    "CPU": ("CPU", 1),
    "NVIDIA H100": ("NVIDIA H100", 1),
    "NVIDIA H100 x 8": ("NVIDIA H100", 8),
    "TPU v5e": ("TPU v5e", 1),
    "TPU v5e x 4": ("TPU v5e", 4),
    "TPU v6e": ("TPU v6e", 1),
}
LAWS = Path("build")
MANUAL = ("sdy.manual_computation", "SPMDFullToShardShape")
# Without a GPU to try them on, the compiler finds no tiles for some of the products that it would write itself.
NO_TILES = "Couldn't find output tile sizes"
LIBRARY_PRODUCTS: dict[str, str | bool] = {"xla_gpu_enable_triton_gemm": False}


@dataclass(frozen=True)
class Config:
    """What to compile."""

    only: str = ""
    """Rows whose name contains this."""
    targets: tuple[str, ...] = tuple(TARGETS)
    """Platforms and numbers of devices."""
    sizes: tuple[Literal["small", "large"], ...] = ("small", "large")
    """Of the programs' arguments."""
    every_function: bool = False
    """In place of these, all rows of the compile law at two sizes (compile_functions.json and .md): takes hours."""
    out: Path = Path("benchmarks/results")
    """Directory of the JSON file, which is merged with what is there."""


def programs(every_function: bool) -> list[tuple[str, str, Any]]:
    """Name and size of each row, and what lowers it for a mesh."""
    if every_function:
        return [(f"`{row.name}`", row.size, row.lower) for row in compiled_rows.rows()]
    steps = [(step.name, step.size, step.lower) for step in STEPS]
    # Steps of small sizes first: what is wrong shows soon.
    steps.sort(key=lambda step: step[1], reverse=True)
    return [*((each.name, "large", each.lower) for each in FUNCTIONS), *steps]


def measured(lowered: jax.stages.Lowered, target: str) -> dict[str, Any]:
    """Compiles a program; its row."""
    num_devices = TARGETS[target][1]
    row: dict[str, Any] = {}
    begin = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if NO_TILES not in str(error):
            raise
        row["options"] = LIBRARY_PRODUCTS
        begin = time.perf_counter()
        compiled = lowered.compile(compiler_options=LIBRARY_PRODUCTS)
    row["compile seconds"] = round(time.perf_counter() - begin, 2)
    row |= hlo.summary(compiled)
    asked = hlo.costs_of(lowered.compiler_ir("hlo").as_hlo_text())  # pyright: ignore[reportOptionalMemberAccess]
    # The body of a shard_map is the program of one device already.
    shared = 1 if any(mark in lowered.as_text() for mark in MANUAL) else num_devices
    row["flops"], row["exact flops"] = asked.flops / shared, asked.exact_flops / shared
    return row


def with_roofline(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the least time on its chip, if its program compiles and its chip's speed is published."""
    platform = TARGETS[row["target"]][0]
    if "error" in row or platform not in CHIPS:
        return row
    num_bytes = row["bytes"]
    if platform.startswith("TPU"):
        num_bytes = row["argument and result bytes"] + 2 * row["temporary bytes"]
    found = roofline(CHIPS[platform], flops=row["flops"], exact_flops=row["exact flops"], num_bytes=num_bytes)
    return row | {"roofline seconds": found.seconds, "bound": found.bound}


def key_of(row: dict[str, Any]) -> tuple[str, str, str]:
    """What a row is about."""
    return row["name"], row["size"], row["target"]


def counted(row: dict[str, Any]) -> dict[str, int]:
    """What must not double unseen."""
    return {"temporary bytes": row["temporary bytes"], "collectives": sum(row["collectives"].values())}


def beyond(found: dict[str, int], allowed: dict[str, int]) -> dict[str, tuple[int, int]]:
    """What there is more of than half as much again as is allowed, up to what a compiler rounds memory to."""
    slack = {"temporary bytes": 2**16, "collectives": 0}
    return {what: (found[what], allowed[what]) for what in slack if found[what] > 1.5 * allowed[what] + slack[what]}


def grown(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """What a row takes far more of, now and before, by the same compiler, of arguments of the same shapes."""
    same = all(before.get(what) == after.get(what) for what in ("compiler", "arguments"))
    if "error" in before | after or not same:
        return {}
    return beyond(counted(after), counted(before))


def law_records() -> dict[str, Any]:
    """The costs of the rows of the compile law, by platform, as its last run left them."""
    found = {}
    for path in sorted(LAWS.glob("compile-*.json")):
        content = json.loads(path.read_text())
        if "devices" not in content:  # of an earlier version of the law
            continue
        found[content["platform"]] = {name: content[name] for name in ("jax", "devices", "batch", "costs")}
    return found


def main(config: Config) -> int:
    """Compiles what is new or changed, and writes the tables after each row; returns how many rows take far more."""
    path = config.out / ("compile_functions.json" if config.every_function else "compile.json")
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": [], "law": {}}
    rows = {key_of(row): row for row in results["rows"]}
    wanted = programs(config.every_function)
    known = {(name, size) for name, size, _ in wanted}
    rows = {key: row for key, row in rows.items() if key[:2] in known}
    laws = {} if config.every_function else results["law"] | law_records()

    num_grown = 0
    refused = (jax.errors.JaxRuntimeError, ValueError) if config.every_function else jax.errors.JaxRuntimeError

    def write() -> None:
        order = {(name, size, target): i for i, target in enumerate(TARGETS) for name, size, _ in wanted}
        ordered = sorted(rows.values(), key=lambda row: (order[key_of(row)], row["size"] == "small", row["name"]))
        used = sorted({row["compiler"] for row in ordered})
        results = {"compilers": used, "rows": [with_roofline(row) for row in ordered], "law": laws}
        write_json(path, results)
        write_atomically(path.with_suffix(".md"), compile_table.everything(results).encode())

    for target in config.targets:
        for name, size, lower in wanted:
            if config.only not in name or size not in config.sizes:
                continue
            row: dict[str, Any] = {"name": name, "size": size, "target": target}
            try:
                platform, num_devices = TARGETS[target]
                row["compiler"] = compilers.version(platform)
                lowered = lower(compilers.mesh(platform, num_devices))
                fingerprint = compilers.fingerprint(platform, lowered)
                if config.every_function:
                    row["arguments"] = compile_table.shapes_of(jax.tree.leaves(lowered.in_avals))
                if rows.get(key_of(row), {}).get("program") == fingerprint:
                    rows[key_of(row)] |= row
                    continue
                row["program"] = fingerprint
                row |= measured(lowered, target)
            except compilers.CompilerMissing as missing:
                rich.print(f"[yellow]left out: {missing}")
                break
            except refused as error:  # what a compiler cannot do, or a function at this size, is a line of the table
                row["error"] = str(error).splitlines()[0][:200]
            more = grown(rows.get(key_of(row), row), row)
            num_grown += bool(more)
            rows[key_of(row)] = row
            rich.print(compile_table.in_words(row))
            if more:
                rich.print(f"[bold red]  far more than before: {more} (now, before)")
            write()
    write()
    return num_grown


if __name__ == "__main__":
    # Without this the plugin for CUDA asks for libraries that only a GPU needs, and is left out.
    jax.config.update("jax_platforms", "cpu")
    with errors_told():
        sys.exit(main(tyro.cli(Config, prog="python -m benchmarks.compile", description=__doc__)) > 0)
