"""How fast our functions are beside the same arithmetic written by hand, or beside another library.

    python -m benchmarks.speed            # ours beside hand-written JAX
    python -m benchmarks.speed --peers    # also beside distrax, numpyro, flax and torch, where they are installed
    taskset -c 0 python -m benchmarks.speed --only "ordered_lstm 256"    # these lines, on one core; nothing is written

Each line is a ratio: the two functions are compiled and timed in turn, A B A B ...,
in one process; the ratio is the median over the rounds, with the quartiles beside it. The machine's own speed cancels.
"""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich
import tyro
from rich.progress import track
from rich.table import Table

from benchmarks import speed_estimators, speed_recurrent, speed_smooth
from benchmarks.comparison import measure
from experiments.files import errors_told, write_json

#: Each has lines(), peer_lines() beside other libraries, and perhaps memory().
GROUPS: tuple[Any, ...] = (speed_estimators, speed_recurrent, speed_smooth)


@dataclass(frozen=True)
class Config:
    """Settings of the timings."""

    rounds: int = 40
    """Pairs of timed runs for each line."""
    peers: bool = False
    """Also time other libraries that are installed."""
    only: str = ""
    """Lines whose name contains this; nothing is written then."""
    out: Path = Path("benchmarks/results")
    """Directory that gets speed.json."""


def import_milliseconds(rounds: int = 7) -> dict[str, float]:
    """What ``import jaxlab``, and all of its modules, cost over ``import jax``: medians over fresh processes."""
    program = (
        "import time, jax, jax.numpy; a = time.perf_counter(); import jaxlab; b = time.perf_counter();"
        "[getattr(jaxlab, name) for name in jaxlab.__all__]; c = time.perf_counter(); print(b - a, c - a)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(rounds)
    ]
    package, modules = np.median(np.array(runs, float), 0) * 1e3
    return {"import jaxlab": float(package), "import jaxlab and all its modules": float(modules)}


def main(config: Config) -> dict[str, Any]:
    """Measures every line, prints the table, writes ``speed.json``."""
    chosen = [line for group in GROUPS for line in group.lines() + (group.peer_lines() if config.peers else [])]
    chosen = [line for line in chosen if config.only in line.name]
    if not chosen:
        raise ValueError(f"speed: only must be part of the name of a line; got {config.only!r}")
    rows = [measure(comparison, config.rounds) for comparison in track(chosen, description="timing")]
    table = Table("comparison", "ratio", "quartiles", "aim", "ours, ms", "other, ms")
    for row in rows:
        low, high = row["quartiles"]
        times = (f"{row['milliseconds']:.2f}", f"{row['milliseconds_other']:.2f}")
        table.add_row(row["name"], f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['aim']:.1f}", *times)
    rich.print(table)
    if config.only:
        return {"rows": rows}
    imports = import_milliseconds()
    for name, milliseconds in imports.items():
        rich.print(f"{name}: {milliseconds:.1f} ms over import jax")
    memory = {name: ratio for group in GROUPS if hasattr(group, "memory") for name, ratio in group.memory().items()}
    for name, ratio in memory.items():
        rich.print(f"{name}: {ratio:.2f}")
    results = {
        "rows": rows,
        "memory": memory,
        "import_milliseconds": imports,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    write_json(config.out / "speed.json", results)
    return results


if __name__ == "__main__":
    with errors_told():
        main(tyro.cli(Config, description=__doc__))
