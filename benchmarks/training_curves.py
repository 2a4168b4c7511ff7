"""Trains the auto-encoder of the published comparisons with each estimator, and draws the curves.

    python -m benchmarks.training_curves --steps 20000 --seeds 2               # everything, one after the other
    python -m benchmarks.training_curves --estimators disarm --evaluations 2 --steps 200000
    python -m benchmarks.training_curves --protocol disarm --depth linear
    python -m benchmarks.training_curves --time                                # milliseconds a step, in turns
    python -m benchmarks.training_curves --report                              # table and figures of what there is
    python -m benchmarks.training_curves --smoke                               # seconds, on small images

A Bernoulli auto-encoder with 200 bits; Fashion-MNIST, 50,000 training images, binarised anew each epoch; all seeds in
one compiled program. Killed at any moment, the same command goes on and ends in the same bits; with a larger --steps a
run goes on from where it ended; with --first-seed more seeds are added. What is written below --out:

    rodeo-nonlinear-fashion_mnist/disarm-2/seeds-0-1/metrics.jsonl, checkpoints, TensorBoard's events
    rodeo-nonlinear-fashion_mnist/table.md, results.json, *.png

train ELBO: at frozen parameters, one draw an image, over all training images. test bound: that of 100 draws, over all
test images. variance: of the estimator's gradient at frozen parameters on one fixed minibatch, mean over the encoder's
parameters.
"""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from benchmarks import curves_report
from benchmarks.binary_vae import (
    Data,
    Depth,
    ProtocolName,
    Recipe,
    Training,
    bound,
    encoder_variance,
    initial_training,
    train,
)
from benchmarks.trained_estimators import TRAINED, trainings
from experiments import images
from experiments.files import RunError, errors_told
from experiments.images import DataError, Name
from experiments.runs import Run, progress

RUNS = Path(__file__).parent.parent / "build" / "training_curves"
#: Of what is measured: the same images and draws for every model.
MEASUREMENT_SEED = 2**31 - 1
TIMED_STEPS = 50


@dataclass(frozen=True)
class Settings:
    """What to train, and how long."""

    estimators: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = tuple(TRAINED)
    """By name, in this order."""
    evaluations: tuple[int, ...] = (2, 3)
    """Evaluations of f that a step may cost; an estimator that needs more gets the fewest that it can do with."""
    protocol: ProtocolName = "rodeo"
    """Whose batch size, learning rates and initial biases."""
    depth: Depth = "nonlinear"
    """Networks 784-200-200-200 and back with leaky rectifiers, or one affine map on either side."""
    data: Name = "fashion_mnist"
    """The digits are for trials: they are few and small."""
    data_directory: Path | None = None
    """Directory with the files of Fashion-MNIST; otherwise the system's package, or a checked download."""
    steps: int = 20_000
    """A multiple of --block."""
    seeds: int = 2
    """How many are trained at once."""
    first_seed: int = 0
    """The others count on from it."""
    block: int = 500
    """Steps in one compiled call; a line of the metrics each."""
    evaluate_every: int = 2_000
    """Steps between two lines with the train ELBO; the rest is measured at 1,000, 2,000, 5,000, 10,000, ... steps."""
    save_every: int = 5_000
    """Steps between two checkpoints."""
    pairs: int = 500
    """Pairs of gradients from which a variance is measured."""
    bound_samples: int = 100
    """Draws an image in the test bound."""
    time: bool = False
    """Train nothing: time the steps of all estimators, in turns."""
    report: bool = False
    """Train nothing: draw up the table and the figures of the runs there are."""
    smoke: bool = False
    """A few steps of two estimators (or of those named) on the digits, which say nothing."""
    out: Path = RUNS
    """Directory of the runs."""

    @property
    def directory(self) -> Path:
        """Of the runs that can be compared."""
        return self.out / f"{self.protocol}-{self.depth}-{self.data}"


@dataclass(frozen=True)
class RunConfig:
    """What one run depends on."""

    recipe: Recipe
    data: Name
    seeds: int
    first_seed: int
    block: int
    evaluate_every: int
    pairs: int
    bound_samples: int
    steps: int


def smoke(settings: Settings) -> Settings:
    """The same on small images, for seconds."""
    small: dict[str, Any] = {
        "steps": 20,
        "block": 10,
        "evaluate_every": 10,
        "save_every": 10,
        "pairs": 2,
        "bound_samples": 3,
    }
    default = Settings()
    if settings.estimators == default.estimators:
        small |= {"estimators": ("leave_one_out", "double_control_variate"), "evaluations": (2,)}
    if settings.out == default.out:
        small["out"] = RUNS.with_name("training_curves_smoke")
    return dataclasses.replace(settings, data="digits", **small)


@contextlib.contextmanager
def compiling_fast(wanted: bool) -> Iterator[None]:
    """Compiles in half the time code that is slow, for runs of seconds."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", wanted or before)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def load(name: Name, directory: Path | None) -> Data:
    """Training, validation and test images in bytes: 50,000, 10,000 and 10,000; of the digits 1,297, 250 and 250."""
    if name == "fashion_mnist":
        pictures = np.concatenate([images.load(name, directory), images.load(name, directory, split="test")])
        ends = [50_000, 60_000]
    else:
        pictures, ends = images.load(name, directory), [1297, 1547]
    rows = np.round(pictures * 255).astype(np.uint8).reshape(len(pictures), -1)
    train, validation, test = np.split(rows, ends)
    mean = (train.mean(0) / 255).astype(np.float32)
    return Data(*(jnp.asarray(part) for part in (train, validation, test, mean)))


def check(settings: Settings) -> None:
    """Raises RunError for settings that cannot be trained."""
    for name in settings.estimators:
        if name not in TRAINED:
            raise RunError(f"--estimators: no {name!r}; there are {', '.join(TRAINED)}")
    for option in ("steps", "evaluate_every", "save_every"):
        if getattr(settings, option) % settings.block or getattr(settings, option) <= 0:
            raise RunError(f"--{option.replace('_', '-')} must be a positive multiple of --block, {settings.block}")


def is_measured(step: int, block: int) -> bool:
    """Whether the step is a 1, 2 or 5 and zeros, and not among the first."""
    return step >= 2 * block and str(step).rstrip("0") in ("1", "2", "5")


def keys_of(config: RunConfig) -> Any:
    """One key a seed."""
    return jax.vmap(jax.random.key)(config.first_seed + jnp.arange(config.seeds))


def measurements(training: Training, step: int, config: RunConfig, data: Data) -> dict[str, np.ndarray]:
    """What is measured after this step, by name, with one entry a seed."""
    train_key, validation_key, test_key, variance_key = jax.random.split(jax.random.key(MEASUREMENT_SEED), 4)

    def bound_on(part: Any, key: Any, num_samples: int) -> Any:
        return bound(training.model, key, part, data.mean, config.recipe.settings, num_samples)

    measured: dict[str, Any] = {}
    everything = is_measured(step, config.block)
    if everything or step % config.evaluate_every == 0:
        measured["train_elbo"] = bound_on(data.train, train_key, 1)
    if everything:
        measured["validation_elbo"] = bound_on(data.validation, validation_key, 1)
        measured["test_bound"] = bound_on(data.test, test_key, config.bound_samples)
        variance, error = encoder_variance(training, variance_key, data, config.recipe, config.pairs)
        measured |= {"variance": variance, "variance_standard_error": error}
        measured |= TRAINED[config.recipe.estimator].shown(training.tunables)
    return {name: np.asarray(value) for name, value in measured.items()}


def train_one(config: RunConfig, directory: Path, data: Data, save_every: int, console: Console) -> None:
    """Trains one estimator with its seeds to the end, from wherever an earlier process left it."""
    keys = keys_of(config)
    recipe = config.recipe
    name = f"{recipe.estimator}-{recipe.evaluations}"
    with Run(directory, config, changeable=("steps",)) as run:
        step, training = run.restore(initial_training(keys, recipe, data.mean))
        if step >= config.steps:
            return
        # Seconds of the loop, those that it waited for compiled code, those that it saved; without the first block,
        # which is compiled, and without measurements.
        spent, waited, saved, steps, is_first = 0.0, 0.0, 0.0, 0, True
        with progress(name, config.steps, step) as advance:
            while step < config.steps:
                start = time.perf_counter()
                training, losses = train(training, keys, jnp.int32(step), data, recipe, config.block)
                called = time.perf_counter()
                losses = np.asarray(losses)
                ready = time.perf_counter()
                step += config.block
                measured = measurements(training, step, config, data)
                after = time.perf_counter()
                run.log(step, train_loss=losses, **measured)
                advance(step, loss=losses.mean())
                if "test_bound" in measured:
                    console.print(f"{name} step {step}: {curves_report.in_words(measured)}")
                logged = time.perf_counter()
                if step % save_every == 0 or step == config.steps:
                    run.save(step, training)
                end = time.perf_counter()
                if not is_first:
                    spent, waited, saved = (
                        spent + end - after + ready - start,
                        waited + ready - called,
                        saved + end - logged,
                    )
                    steps += config.block
                is_first = False
        if steps:
            console.print(
                f"{name}: {1e3 * waited / steps:.2f} ms a step of {config.seeds} seeds; of the time,"
                f" Python {100 * (spent - waited - saved) / spent:.2f} %, checkpoints {100 * saved / spent:.2f} %"
            )


def config_of(settings: Settings, name: str, evaluations: int) -> RunConfig:
    """The configuration of one run."""
    shared = {field.name for field in dataclasses.fields(RunConfig)} - {"recipe"}
    recipe = Recipe(settings.protocol, settings.depth, name, evaluations)
    return RunConfig(recipe=recipe, **{name: getattr(settings, name) for name in shared})


def time_steps(settings: Settings, data: Data, rounds: int, console: Console) -> dict[str, float]:
    """Seconds of a training step with all seeds: medians over rounds in which the estimators take turns."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, evaluations in trainings(settings.estimators, settings.evaluations):
        config = config_of(settings, name, evaluations)
        keys = keys_of(config)
        initial = initial_training(keys, config.recipe, data.mean)
        call = functools.partial(train, recipe=config.recipe, num_steps=TIMED_STEPS)

        def one_call(call: Any = call, initial: Any = initial, keys: Any = keys) -> Any:
            # A copy, for the state is given away.
            return call(jax.tree.map(jnp.copy, initial), keys, jnp.int32(0), data)

        calls[f"{name}-{evaluations}"] = one_call
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if i > 0:  # the first one is compiled
                seconds[name].append((time.perf_counter() - start) / TIMED_STEPS)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    for name, value in medians.items():
        console.print(f"{name}: {1e3 * value:.2f} ms a step of {settings.seeds} seeds")
    return medians


def command_of(settings: Settings) -> str:
    """The command that trains the like of these runs."""
    chosen = (f"--{name} {getattr(settings, name)}" for name in ("protocol", "depth", "data"))
    return f"python -m benchmarks.training_curves {' '.join(chosen)}"


def main(settings: Settings) -> int:
    """Trains, times or reports; returns the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    settings = smoke(settings) if settings.smoke else settings
    try:
        check(settings)
        if not settings.report:
            with compiling_fast(settings.smoke):
                train_or_time(settings, console)
        for path in curves_report.write(settings.directory, command_of(settings)):
            console.print(path)
    except (DataError, RunError) as error:
        print(f"training_curves: {error}", file=sys.stderr)
        return 2
    return 0


def train_or_time(settings: Settings, console: Console) -> None:
    """What the settings ask for, one estimator after the other."""
    data = load(settings.data, settings.data_directory)
    if settings.time:
        seconds = time_steps(settings, data, 11, console)
        curves_report.save_timings(settings.directory, seconds, settings.seeds)
        return
    for name, evaluations in trainings(settings.estimators, settings.evaluations):
        seeds = f"seeds-{settings.first_seed}-{settings.first_seed + settings.seeds - 1}"
        directory = settings.directory / f"{name}-{evaluations}" / seeds
        train_one(config_of(settings, name, evaluations), directory, data, settings.save_every, console)


if __name__ == "__main__":
    with errors_told():
        sys.exit(main(tyro.cli(Settings, description=__doc__)))
