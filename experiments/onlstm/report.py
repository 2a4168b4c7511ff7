"""Puts the results of the experiments into README.md, so that its numbers are generated and never typed.

    python -m experiments.onlstm.report            # rewrites what stands between the markers
    python -m experiments.onlstm.report --check    # exit status 1 if the README is not what this would write

The results are JSON files in ``results``, copies of those that ``logic``, ``listops`` and ``controls`` write; figures
are drawn again from them. The markers are the comments ``<!-- table:NAME -->``, with the name of a file, and
``<!-- end -->``, on lines of their own. Where there is no such file, the README says so.
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.files import errors_told, save_figure, write_atomically
from experiments.onlstm import classification, controls

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """What to write where."""

    check: bool = False
    """Only compare; write nothing."""
    readme: Path = HERE / "README.md"
    """The file with the markers."""
    results: Path = HERE / "results"
    """Directory with the results; it gets the figures."""


def section(name: str, results: Path, draw: bool) -> str:
    """What belongs between the markers of a name; draws its figure."""
    file = results / f"{name}.json"
    if not file.exists():
        return f"Not run yet: there is no `{results.name}/{name}.json`."
    if name == "controls":
        summary = json.loads(file.read_text())
        said, table, figure = (
            controls.circumstances(summary),
            controls.markdown_of(summary),
            controls.figure_of(summary),
        )
    else:
        summary = classification.load_summary(file)
        said, table = classification.circumstances(summary), classification.markdown_of(summary)
        figure = classification.figure_of(summary)
    if draw:
        save_figure(results / f"{name}.png", figure)
    return f"{said}\n\n{table.rstrip()}\n\n![{name}]({results.name}/{name}.png)"


def written(text: str, results: Path, draw: bool) -> str:
    """The README with every section as its results have it."""
    return re.sub(
        r"(<!-- table:(\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{section(match[2], results, draw)}\n\n{match[3]}",
        text,
        flags=re.S,
    )


def main(settings: Settings) -> int:
    """Writes, or compares; the exit status."""
    text = settings.readme.read_text()
    new = written(text, settings.results, draw=not settings.check)
    if settings.check:
        return int(text != new)
    write_atomically(settings.readme, new.encode())
    return 0


if __name__ == "__main__":
    with errors_told():
        sys.exit(main(tyro.cli(Settings, description=__doc__)))
