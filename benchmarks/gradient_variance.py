"""How biased, how noisy and how costly every gradient estimator is, against exact gradients.

    python -m benchmarks.gradient_variance                           # everything
    python -m benchmarks.gradient_variance --problem vae_trained --estimator leave_one_out gumbel_softmax
    python -m benchmarks.gradient_variance --data fashion_mnist      # the auto-encoder on other images

Prints a table for each problem; writes ``gradient_variance.json`` and figures. Parameters and minibatch are frozen, so
what varies is the estimator alone. An estimator that is declared unbiased in ``ESTIMATORS`` and measured otherwise (or
one declared biased whose bias no problem shows) is a contradiction, and makes the exit status 1.
"""

import datetime
import importlib.metadata
import math
import os
import platform
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import jaxlab
from benchmarks import figures, tables
from benchmarks.measure import Summary, quantities, rounding_of, seconds_a_step, summary_of_variant, timed_call
from benchmarks.problems import PROBLEMS, Problem, Source
from benchmarks.variants import Variant, all_variants, described, reference
from experiments.files import errors_told, write_json
from experiments.images import DataError, Name
from jaxlab.estimators import ESTIMATORS

RESULTS = Path(__file__).parent / "results"
PARTIAL_RESULTS = Path(__file__).parent.parent / "build" / "gradient_variance"
#: One problem for each kind of distribution.
SMOKE_PROBLEMS = ("categories", "normal_square", "vae_trained")
#: Where matrix products are rounded to less than float32 by default, that would look like a bias.
PRECISION = "highest"
#: How many standard errors are a bias. Of a hundred estimators without bias, 0.6 % of runs show one that far off.
DETECTED = 4.0


class SettingsError(Exception):
    """Settings that cannot be measured; the message says what could."""


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    problem: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Problems by name; all of them by default."""
    estimator: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Estimators by name; all of them by default."""
    samples: int = 4096
    """Gradients drawn for each line."""
    data: Name = "digits"
    """Images of the auto-encoder."""
    data_directory: Path | None = None
    """Directory with the file of Fashion-MNIST; otherwise the system's package, or a checked download."""
    smoke: bool = False
    """Run a problem of each kind, with so few draws and training steps that it says little."""
    out: Path | None = None
    """Directory for JSON and figures: benchmarks/results, or build/gradient_variance for anything but a full run."""
    seed: int = 0
    """Of data order, weights and draws."""

    @property
    def is_full(self) -> bool:
        """Whether everything is measured, on the default images."""
        return not (self.problem or self.estimator or self.smoke) and self.data == "digits"

    @property
    def directory(self) -> Path:
        """Where results go: a partial run does not overwrite a full one."""
        return self.out or (RESULTS if self.is_full else PARTIAL_RESULTS)


@dataclass(frozen=True)
class Effort:
    """How much is done for each line."""

    draws: int
    warm_up: int  # steps that move the state of a stateful estimator
    rounds: int  # pairs of timed calls
    timed: tuple[str, ...]  # problems on which estimators are timed: on a single bit, there is nothing to time
    rough: bool = False  # times do not matter: they are those of code compiled fast


def effort_of(settings: Settings) -> Effort:
    """The effort for the settings."""
    if settings.smoke:
        return Effort(draws=min(settings.samples, 512), warm_up=8, rounds=3, timed=(figures.MAIN_PROBLEM,), rough=True)
    return Effort(draws=settings.samples, warm_up=32, rounds=61, timed=settings.problem or (figures.MAIN_PROBLEM,))


def source_of(settings: Settings) -> Source:
    """What problems are made of, for the settings."""
    training = {"training_calls": 3} if settings.smoke else {}
    return Source(settings.data, settings.data_directory, settings.seed, **training)


def check_names(settings: Settings) -> None:
    """Raises SettingsError for a name that is in no table, or too few samples."""
    for option, names, table in (
        ("--problem", settings.problem, PROBLEMS),
        ("--estimator", settings.estimator, ESTIMATORS),
    ):
        for name in names:
            if name not in table:
                raise SettingsError(f"{option}: no {name!r}; there are {', '.join(table)}")
    if settings.samples < 4:
        raise SettingsError(f"--samples: at least 4 are needed for two halves with a variance; got {settings.samples}")


def verdict_of(unbiased: bool, z: float) -> str:
    """What is measured beside what is declared, in words; a contradiction begins with that word."""
    if not math.isfinite(z):
        return "CONTRADICTION: not a number"
    if abs(z) >= DETECTED:
        return "CONTRADICTION: biased" if unbiased else "biased, as declared"
    return "unbiased" if unbiased else "bias not seen here"


def measure_problem(
    problem: Problem, size: int, length: float, chosen: list[Variant], effort: Effort, seed: int, advance: Any
) -> list[dict[str, Any]]:
    """The lines of one problem, of so many parameters and an exact gradient of such length.

    ``advance`` is called with the label of each line that is done.
    """

    def summary(variant: Variant) -> Summary:
        # Each line has draws of its own, the same ones whatever else is measured.
        line = zlib.crc32(f"{problem.name} {variant.label}".encode())
        key = jax.random.fold_in(jax.random.key(seed), line)
        with jax.default_matmul_precision(PRECISION):  # which is a setting of the thread
            return jax.block_until_ready(summary_of_variant(variant, problem, key, effort.draws, effort.warm_up))

    summaries: dict[Variant, Summary] = {reference(): summary(reference())}
    others = [variant for variant in chosen if variant != reference()]
    # By program: at two temperatures it is the same.
    programs = {(v.row, v.static, tuple(name for name, _ in v.options)): v for v in reversed(chosen)}
    timed = programs if problem.name in effort.timed else {}

    def compile_timed(variant: Variant) -> None:
        with jax.default_matmul_precision(PRECISION):
            timed_call(variant, problem, effort.rough)()

    # Most of the time is that of the compiler, which is one thread a program.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for variant, result in zip(others, pool.map(summary, others), strict=True):
            summaries[variant] = result
            advance(variant.label)
        list(pool.map(compile_timed, timed.values()))
    plain = summaries[reference()]
    times: dict[Any, tuple[float, float]] = {}
    for program, variant in timed.items():
        seconds, ratio = seconds_a_step(variant, reference(), problem, effort.rounds, effort.rough)
        times[program] = (seconds, 1.0 if variant == reference() else ratio)
    rows = []
    for variant in chosen:
        program = (variant.row, variant.static, tuple(name for name, _ in variant.options))
        relative_variance = float(summaries[variant].variance) / float(plain.variance)
        seconds, ratio = times.get(program, (None, None))
        row: dict[str, Any] = {"problem": problem.name} | described(variant, problem)
        row |= quantities(summaries[variant], size, length, rounding_of(plain))
        row |= {"seconds": seconds, "relative_time": ratio}
        row["relative_variance_time"] = relative_variance * ratio if ratio is not None else None
        row["verdict"] = verdict_of(row["unbiased"], row["z"])
        rows.append(row)
    return rows


def contradictions(rows: list[dict], is_full: bool) -> list[str]:
    """Where measurement and declaration disagree, in words.

    A biased estimator may have no visible bias on some problem (a linear cost, much noise). That *no* problem shows it
    would mean that the declaration, or the measurement, is wrong; only a full run can tell.
    """
    found = [
        f"{row['label']} on {row['problem']}: declared {'unbiased' if row['unbiased'] else 'biased'},"
        f" z = {row['z']:.1f} ({row['verdict']})"
        for row in rows
        if row["verdict"].startswith("CONTRADICTION")
    ]
    if is_full:
        largest: dict[str, float] = {}
        for row in rows:
            if not row["unbiased"]:
                largest[row["estimator"]] = max(largest.get(row["estimator"], 0.0), abs(row["z"]))
        found += [f"{name}: declared biased, but no problem shows it" for name, z in largest.items() if z < DETECTED]
    return found


def circumstances(settings: Settings, effort: Effort) -> dict[str, Any]:
    """What one needs to know to compare these numbers with others (and no path of this machine)."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": {
            "problem": list(settings.problem),
            "estimator": list(settings.estimator),
            "data": settings.data,
            "seed": settings.seed,
            "smoke": settings.smoke,
            "draws": effort.draws,
            "warm_up": effort.warm_up,
            "rounds": effort.rounds,
        },
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "versions": {
            "jaxlab": jaxlab.__version__,
            "jax": jax.__version__,
            "jaxlib": importlib.metadata.version("jaxlib"),
            "python": platform.python_version(),
        },
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit that was run, with a plus sign if files differ from it; None outside a git checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return name.stdout.strip() + ("+" if changes.stdout else "")


def finite(value: Any) -> Any:
    """The value with six digits a number, and null (which JSON has) for what is not a finite number."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def measure_all(settings: Settings, console: Console) -> dict[str, Any]:
    """Everything that is asked for, printed problem by problem."""
    effort, source = effort_of(settings), source_of(settings)
    names = settings.problem or (SMOKE_PROBLEMS if settings.smoke else tuple(PROBLEMS))
    variants = [v for v in all_variants() if not settings.estimator or v.row.name in settings.estimator]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    problems, rows = [], []
    with jax.default_matmul_precision(PRECISION), Progress(*columns, console=console) as progress:
        task = progress.add_task("measuring", total=len(names) * len(variants))
        for name in names:
            progress.update(task, description=name)
            problem = PROBLEMS[name](source)
            chosen = [variant for variant in variants if variant.fits(problem)]
            progress.advance(task, len(variants) - len(chosen) + (reference() in chosen))

            def advance(label: str) -> None:
                progress.update(task, advance=1, description=f"{problem.name}: {label}")  # noqa: B023 - called now

            exact = np.asarray(ravel_pytree(problem.gradient)[0])
            size, length = exact.size, float(np.linalg.norm(exact))
            new_rows = measure_problem(problem, size, length, chosen, effort, settings.seed, advance)
            problems.append(
                {"name": name, "title": problem.title, "value": problem.value, "size": size, "gradient_norm": length}
            )
            console.print(tables.table_of(problems[-1], new_rows, console.width))
            rows += new_rows
    found = contradictions(rows, settings.is_full)
    results = circumstances(settings, effort) | {"problems": problems, "rows": rows, "contradictions": found}
    return finite(results)


def main(settings: Settings) -> int:
    """Measures, prints, writes; returns the exit status."""
    # Piped into a file, the tables would be folded at 80 columns.
    console = Console() if sys.stdout.isatty() else Console(width=tables.FULL_WIDTH)
    try:
        check_names(settings)
        results = measure_all(settings, console)
    except (DataError, SettingsError) as error:
        console.print(f"[bold red]{error}[/]", highlight=False)
        return 2
    write_json(settings.directory / "gradient_variance.json", results)
    paths = figures.draw(results, settings.directory)
    console.print(f"written: gradient_variance.json and {len(paths)} figures in {settings.directory}")
    for words in results["contradictions"]:
        console.print(f"[bold white on red] CONTRADICTION [/] [bold red]{words}[/]", highlight=False)
    return 1 if results["contradictions"] else 0


if __name__ == "__main__":
    with errors_told():
        sys.exit(
            main(
                tyro.cli(
                    Settings,
                    prog="python -m benchmarks.gradient_variance",
                    description=__doc__,
                    config=(tyro.conf.FlagCreatePairsOff,),
                )
            )
        )
