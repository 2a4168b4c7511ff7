"""Damaged files of every kind that the experiments read: each must give its data or a clear error.

    python -m benchmarks.fuzz                 # 10,000 files of each kind, 7 minutes on one core
    python -m benchmarks.fuzz --number 500 --kinds idx safetensors

A file that is right is damaged from one to four times: bits turned, bytes replaced, parts cut out, doubled, moved or
put in, the end cut off, numbers made extreme, brackets opened thousands of times. Where a format has checksums, the
damage is also done before they are computed, or nothing behind them would ever be reached. What comes of it is one of

    data       it was read: the damage did not matter, or cannot be seen
    refused    one of the errors that the reader documents, naming the file
    lost       another error; a process that died; more than 10 seconds of computing; or more memory than 10 times the
               file and 1 MiB (of Python and NumPy, by tracemalloc; the process as a whole, what native code takes
               included, may grow by 1 GiB: RLIMIT_AS)

Every file is made by its number alone, so that one that was lost can be made again. The counts are kept in
``benchmarks/results/fuzz.json``; the command fails if anything was lost.
"""

import json
import os
import random
import resource
import signal
import sys
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import rich
import tyro
from rich.markup import escape

from benchmarks.damage import Kind, damaged
from benchmarks.damaged_files import KINDS
from experiments.files import errors_told, write_atomically

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
SECONDS = 10
ALLOWANCE = 2**20
NATIVE_GROWTH = 2**30


class Lost(NamedTuple):
    """A file that gave neither data nor a documented error."""

    number: int
    why: str


class Hung(BaseException):
    """Too much time was spent; no reader catches it."""


def outcome_of(kind: Kind, directory: Path, number: int) -> str:
    """What comes of the file with this number: "data", "refused", or what is wrong."""
    content = damaged(kind, random.Random(f"{kind.name} {number}"))
    path = directory / kind.file
    path.write_bytes(content)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    tracemalloc.start()
    try:
        kind.read(path)
        outcome = "data"
    except kind.errors as error:
        named = str(directory) in str(error)
        outcome = "refused" if named else f"{type(error).__name__} that does not name the file: {error}"[:200]
    except Hung:
        outcome = f"more than {SECONDS} s"
    except BaseException as error:  # what panics in Rust is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome = f"{type(error).__name__}: {error}"[:200]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    if outcome in ("data", "refused") and peak > 10 * len(content) + ALLOWANCE:
        return f"{peak} bytes of memory for a file of {len(content)}"
    return outcome


def tried(
    kind: Kind, directory: Path, numbers: Iterable[int], mark: Path | None = None
) -> tuple[Counter[str], list[Lost]]:
    """How many files were read and refused, and those that were lost.

    Args:
      kind: of file.
      directory: to write into.
      numbers: of the files.
      mark: a file that gets each number before its file is read.
    """

    def hang(*_: Any) -> None:
        raise Hung

    counts: Counter[str] = Counter(data=0, refused=0)
    lost = []
    kind.prepare(directory)
    kind.read(directory / kind.file)
    before = signal.signal(signal.SIGPROF, hang)
    try:
        for number in range(3):  # what is imported and made once, by a message too, is no memory of one file
            outcome_of(kind, directory, number)
        for number in numbers:
            if mark is not None:
                mark.write_text(str(number))
            outcome = outcome_of(kind, directory, number)
            if outcome in counts:
                counts[outcome] += 1
            else:
                lost.append(Lost(number, outcome))
    finally:
        signal.signal(signal.SIGPROF, before)
    return counts, lost


def tried_apart(kind: Kind, first: int, end: int) -> tuple[dict[str, int], list[Lost]]:
    """As ``tried``, in a process of its own, which may die: then another one goes on behind the file it died of."""
    total, lost = Counter(data=0, refused=0), []
    while first < end:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            report, mark = directory / "report.json", directory / "begun"
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    place = directory / "files"
                    place.mkdir()
                    kind.prepare(place)
                    kind.read(place / kind.file)
                    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
                    limit = size + NATIVE_GROWTH
                    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
                    counts, found = tried(kind, place, range(first, end), mark)
                    report.write_text(json.dumps([counts, found]))
                    status = 0
                finally:
                    os._exit(status)
            _, status = os.waitpid(child, 0)
            if report.exists():
                counts, found = json.loads(report.read_text())
                total.update(counts)
                return dict(total), lost + [Lost(*entry) for entry in found]
            # It died: what it had counted before is gone with it, and is counted again by the next two.
            died_at = int(mark.read_text()) if mark.exists() else first
            counts, found = tried_apart(kind, first, died_at) if died_at > first else ({}, [])
            total.update(counts)
            lost += [*found, Lost(died_at, f"the process ended with status {status}")]
            first = died_at + 1
    return dict(total), lost


@dataclass(frozen=True)
class Config:
    """What is tried."""

    number: int = 10_000
    """Files of each kind."""
    kinds: tuple[str, ...] = ()
    """By name; all of them if none is named."""
    out: Path = RESULTS
    """Gets the counts, kind by kind; those of other kinds stay in it."""


def main(config: Config) -> int:
    """Tries the files; returns how many were lost."""
    table: dict[str, Any] = json.loads(config.out.read_text()) if config.out.exists() else {}
    all_lost = 0
    for kind in KINDS:
        if config.kinds and kind.name not in config.kinds:
            continue
        counts, lost = tried_apart(kind, 0, config.number)
        table[kind.name] = {"tried": config.number, **counts, "lost": len(lost)}
        all_lost += len(lost)
        rich.print(f"{kind.name}: {table[kind.name]}")
        for entry in lost[:5]:
            rich.print(f"  number {entry.number}: {escape(entry.why)}")
        ordered = {known.name: table[known.name] for known in KINDS if known.name in table}
        write_atomically(config.out, (json.dumps(ordered, indent=2) + "\n").encode())
    return all_lost


if __name__ == "__main__":
    with errors_told():
        sys.exit(main(tyro.cli(Config, description=__doc__)) > 0)
