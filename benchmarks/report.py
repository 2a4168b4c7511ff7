"""Puts what was measured into README.md, so that its numbers are generated and never typed.

    python -m benchmarks.report            # rewrites what stands between the markers
    python -m benchmarks.report --check    # exit status 1 if the README is not what this would write

The markers are the comments ``<!-- table:gradient_variance -->``, ``<!-- table:training_curves -->``,
``<!-- table:speed -->``, ``<!-- table:stress -->``, ``<!-- table:fuzz -->``, ``<!-- table:compile -->``,
``<!-- table:platform -->``, and ``<!-- end -->`` after each of them, on lines of their own.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import compile_table, curves_report, platform_table, tables
from benchmarks.figures import MAIN_PROBLEM
from experiments.files import errors_told, write_atomically

ROOT = Path(__file__).parent.parent
BEGIN = "<!-- table:gradient_variance -->"
BEGIN_TRAINING = "<!-- table:training_curves -->"
BEGIN_SPEED = "<!-- table:speed -->"
BEGIN_STRESS = "<!-- table:stress -->"
BEGIN_FUZZ = "<!-- table:fuzz -->"
BEGIN_PLATFORM = "<!-- table:platform -->"
BEGIN_COMPILE = "<!-- table:compile -->"
END = "<!-- end -->"
#: Directory of the training runs that are shown, below ``training_curves`` and ``training_curves_long``.
TRAINING = "rodeo-nonlinear-fashion_mnist"


class ReportError(Exception):
    """A README without the markers, or results without the problem; the message says which."""


@dataclass(frozen=True)
class Settings:
    """What to write where."""

    check: bool = False
    """Only compare; write nothing."""
    readme: Path = ROOT / "README.md"
    """The file with the markers."""
    results: Path = ROOT / "benchmarks" / "results"
    """Directory with gradient_variance.json and its figures."""


def section(results: dict[str, Any], figure: str) -> str:
    """What belongs between the markers: one line of circumstances, the table, the figure."""
    rows = [row for row in results["rows"] if row["problem"] == MAIN_PROBLEM]
    problems = [problem for problem in results["problems"] if problem["name"] == MAIN_PROBLEM]
    if not rows or not problems:
        raise ReportError(f"the results have no problem {MAIN_PROBLEM}: run python -m benchmarks.gradient_variance")
    if results["settings"]["smoke"]:
        raise ReportError("the results are those of a smoke run, which say little: run without --smoke")
    if results["contradictions"]:
        raise ReportError(f"the results contradict what is declared: {'; '.join(results['contradictions'])}")
    versions, problem = results["versions"], problems[0]
    circumstances = (
        f"Measured: {problem['title']}; the gradient of {problem['size']:,} encoder parameters on a fixed minibatch"
        f" against the exact one, {results['settings']['draws']:,} draws. Times are relative to `reinforce`"
        f" (jax {versions['jax']}, {results['cores']} cores, {results['device']}, {results['date'][:10]})."
    )
    picture = f"![Bias against noise, for every estimator]({figure})"
    return "\n\n".join([circumstances, tables.markdown_of(rows), *others(results, rows), picture])


def others(results: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """The estimators that do not take bits, each on the first of the other problems that it was measured on."""
    parts, shown = [], {row["estimator"] for row in rows}
    for problem in results["problems"]:
        more = [r for r in results["rows"] if r["problem"] == problem["name"] and r["estimator"] not in shown]
        if more:
            parts += [f"Estimators that do not take bits, on {problem['title']}:", tables.markdown_of(more)]
            shown |= {row["estimator"] for row in more}
    return parts


def two_digits(number: float) -> str:
    """Two decimals, or three below a tenth."""
    return f"{number:.2f}" if number >= 0.1 else f"{number:.3f}"


def speed_section(results: dict[str, Any], more: list[dict[str, Any]]) -> str:
    """The ratios of ``benchmarks.speed`` and of what else was timed as a table, memory, and the cost of the import."""
    imports = ", ".join(f"`{name}` {value:.1f} ms" for name, value in results["import_milliseconds"].items())
    circumstances = (
        "Measured by `make speed` and `make peers`, ours over the other in one run, the two in turn: median and"
        " quartiles of the ratio, what it should be at most, and our time. Estimators: a value and its gradient for"
        " 200 latent bits or normals, decoder 200-200-200-784, batch 100, to the latents' logits alone or to the"
        f" decoder's weights too; the rest as named (jax {results['jax']}, {results['cores']} cores,"
        f" {results['device']}). Over `import jax`: {imports}."
    )
    lines = ["| ours / other | ratio | quartiles | at most | ours, ms |", "| --- | ---: | ---: | ---: | ---: |"]
    for row in results["rows"] + [row for other in more for row in other["rows"]]:
        low, high, middle, aim = (two_digits(number) for number in (*row["quartiles"], row["ratio"], row["aim"]))
        ratios = f"{middle} | {low} to {high} | {aim}"
        lines.append(f"| {row['name']} | {ratios} | {row['milliseconds']:.3g} |")
    memory = [f"{name}: {ratio:.2f}" for name, ratio in results["memory"].items()]
    memory += [
        f"peak memory of a quantizer's step above its inputs, {name}: {megabytes:.0f} MB"
        for other in more
        for name, megabytes in other.get("peak_megabytes", {}).items()
    ]
    return "\n\n".join([circumstances, "\n".join(lines), f"Memory: {'; '.join(memory)}."])


def training_section(runs: list[dict[str, Any]], figure: str) -> str:
    """The last step of each set of training runs as a table, and the figure of the first."""
    parts = []
    for results in runs:
        last = max(row["step"] for row in results["rows"])
        rows = [row for row in results["rows"] if row["step"] == last]
        parts += [f"After {last:,} steps (`{results['command']}`):", curves_report.table_of(rows)]
    legend = curves_report.legend_of(runs[0]["timed_with_seeds"])
    return "\n\n".join([*parts, legend, f"![Train ELBO against steps, for every estimator]({figure})"])


def stress_section(found: dict[str, Any]) -> str:
    """How many trainings were killed how often, and what became of them."""
    return (
        f"{found['kills']} kills ({found['while_starting']} before the first step of a process,"
        f" {found['while_saving']} as a checkpoint was half written) of {found['trainings']} trainings:"
        f" {found['survived']} ended in the same bits, {found['lost']} were lost; the newest checkpoint was damaged"
        f" {found['damaged_latest']} times."
    )


def fuzz_section(found: dict[str, Any]) -> str:
    """How many damaged files of how many kinds were read, refused and lost."""
    names = ("tried", "data", "refused", "lost")
    tried, read, refused, lost = (sum(row[name] for row in found.values()) for name in names)
    return (
        f"{tried:,} damaged files of {len(found)} kinds: {refused:,} were refused with an error that names the file,"
        f" {read:,} were read, for the damage did not matter or cannot be seen, and {lost} were lost."
    )


def with_section(readme: str, text: str, marker: str = BEGIN) -> str:
    """The README with the text between its markers."""
    begin, end = readme.find(marker), readme.find(END, max(0, readme.find(marker)))
    if begin < 0 or end < 0 or readme.count(marker) > 1:
        raise ReportError(f"the README must have the line {marker} once, and {END} after it")
    return f"{readme[: begin + len(marker)]}\n{text}\n{readme[end:]}"


def main(settings: Settings) -> int:
    """Writes or checks the README; returns the exit status."""
    path = settings.results / "gradient_variance.json"
    try:
        readme = settings.readme.read_text(encoding="utf-8")
        figure = settings.results.resolve().relative_to(settings.readme.resolve().parent) / "bias_against_noise.png"
        wanted = with_section(readme, section(json.loads(path.read_text(encoding="utf-8")), figure.as_posix()))
        trained = [settings.results / name / TRAINING for name in ("training_curves", "training_curves_long")]
        runs = [json.loads((at / "results.json").read_text(encoding="utf-8")) for at in trained if at.exists()]
        if runs:
            figure = trained[0].resolve().relative_to(settings.readme.resolve().parent) / "elbo_against_steps.png"
            wanted = with_section(wanted, training_section(runs, figure.as_posix()), BEGIN_TRAINING)
        speed_path = settings.results / "speed.json"
        if speed_path.exists():
            speed = json.loads(speed_path.read_text(encoding="utf-8"))
            more = [
                json.loads(at.read_text(encoding="utf-8"))
                for at in (settings.results / f"speed_{name}.json" for name in ("quantize", "bert"))
                if at.exists()
            ]
            wanted = with_section(wanted, speed_section(speed, more), BEGIN_SPEED)
        stress_path = settings.results / "stress.json"
        if stress_path.exists():
            stress = json.loads(stress_path.read_text(encoding="utf-8"))
            wanted = with_section(wanted, stress_section(stress), BEGIN_STRESS)
        fuzz_path = settings.results / "fuzz.json"
        if fuzz_path.exists():
            fuzz = json.loads(fuzz_path.read_text(encoding="utf-8"))
            wanted = with_section(wanted, fuzz_section(fuzz), BEGIN_FUZZ)
        compile_path = settings.results / "compile.json"
        if compile_path.exists():
            compiled = json.loads(compile_path.read_text(encoding="utf-8"))
            wanted = with_section(wanted, compile_table.readme_section(compiled), BEGIN_COMPILE)
        platform_path = settings.results / "platform_speed_h100.json"
        if platform_path.exists():
            platform = json.loads(platform_path.read_text(encoding="utf-8"))
            wanted = with_section(wanted, platform_table.readme_section(platform), BEGIN_PLATFORM)
    except (OSError, ValueError, ReportError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    if wanted == readme:
        print(f"{settings.readme.name} is up to date")
        return 0
    if settings.check:
        print(f"{settings.readme.name} is not what was measured: run python -m benchmarks.report", file=sys.stderr)
        return 1
    write_atomically(settings.readme, wanted.encode())
    print(f"{settings.readme.name} rewritten")
    return 0


if __name__ == "__main__":
    with errors_told():
        sys.exit(
            main(
                tyro.cli(
                    Settings,
                    prog="python -m benchmarks.report",
                    description=__doc__,
                    config=(tyro.conf.FlagCreatePairsOff,),
                )
            )
        )
