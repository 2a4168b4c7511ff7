"""Kills trainings at random moments and starts them again: do they end in the same bits?

    python -m benchmarks.stress                # 30 kills; benchmarks/results/stress.json
    python -m benchmarks.stress --kills 3 --out runs/stress.json

A small network is trained on scikit-learn's digits, with dropout and Adam, and saves a checkpoint every few steps. Once
it is left alone. Then it is killed by SIGKILL, in turns at a moment drawn uniformly from the time that its steps take,
and at one drawn from the time that a whole process takes, and started again by the same command, until it ends; then a
new one is begun, until there were as many kills as asked for. Lost are trainings that cannot go on, or end in other
parameters or metrics than the one that was left alone, by a single bit.
"""

import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
import tyro

from experiments.checkpoints import damage_of
from experiments.files import errors_told, write_json
from experiments.images import load_labelled
from experiments.runs import CHECKPOINTS, EVENTS, METRICS, Run

ROOT = Path(__file__).parent.parent
RATE, BATCH_SIZE, HIDDEN = 1e-2, 32, 32


@dataclass(frozen=True)
class Training:
    """Settings of the training that is killed."""

    directory: Path
    num_steps: int = 200
    save_every: int = 4


class TrainState(NamedTuple):
    """What the next step depends on."""

    params: Any
    optimizer: Any
    key: jax.Array


def initial_state() -> TrainState:
    """Before the first step."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "first": jax.random.normal(keys[0], (64, HIDDEN)) / 8,
        "second": jax.random.normal(keys[1], (HIDDEN, 10)) / HIDDEN**0.5,
    }
    return TrainState(params, optax.adam(RATE).init(params), keys[2])


def loss_fn(params: Any, key: jax.Array, pixels: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy with half of the hidden units dropped."""
    hidden = jax.nn.relu(pixels @ params["first"])
    hidden = jnp.where(jax.random.bernoulli(key, 0.5, hidden.shape), 2 * hidden, 0)
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ params["second"], labels).mean()


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state: TrainState, pixels: jax.Array, labels: jax.Array) -> tuple[TrainState, jax.Array]:
    """One step; the memory of the state is given up, also while a checkpoint of it is being written."""
    next_key, batch_key, key = jax.random.split(state.key, 3)
    rows = jax.random.randint(batch_key, (BATCH_SIZE,), 0, labels.shape[0])
    loss, gradient = jax.value_and_grad(loss_fn)(state.params, key, pixels[rows], labels[rows])
    with jax.numpy_dtype_promotion("standard"):  # which optax itself relies on
        updates, optimizer = optax.adam(RATE).update(gradient, state.optimizer)
    params: Any = optax.apply_updates(state.params, updates)
    return TrainState(params, optimizer, next_key), loss


def train(config: Training) -> None:
    """Trains to the end, from wherever an earlier process was killed."""
    images, labels = load_labelled("digits", "train")
    pixels = jnp.asarray(images.reshape(len(images), -1) / np.float32(255))
    with Run(config.directory, config, changeable=("directory",)) as run:
        step, state = run.restore(initial_state())
        while step < config.num_steps:
            state, loss = train_step(state, pixels, jnp.asarray(labels))
            step += 1
            run.log(step, loss=loss)
            if step % config.save_every == 0 or step == config.num_steps:
                run.save(step, state)


def end_of(config: Training) -> tuple[list[bytes], bytes]:
    """The bits of a finished training: of its last state, and of its metrics."""
    with Run(config.directory, config, changeable=("directory",)) as run:
        step, state = run.restore(initial_state())
    if step != config.num_steps:
        raise ValueError(f"end_of: {config.directory} has {step} of {config.num_steps} steps")
    raw = state._replace(key=jax.random.key_data(state.key))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(raw)], (config.directory / METRICS).read_bytes()


def start(config: Training) -> subprocess.Popen:
    """A process that trains."""
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in dataclasses.asdict(config).items()]
    command = [sys.executable, "-m", "benchmarks.stress", "train", *settings]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.fspath(ROOT)}
    return subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE)


class Counts(NamedTuple):
    """What became of the trainings."""

    kills: int
    while_saving: int
    """Of the kills: a checkpoint was half written."""
    while_starting: int
    """Of the kills: the process had not taken a step yet."""
    damaged_latest: int
    """Of the kills: the newest checkpoint was damaged after it."""
    trainings: int
    """That were killed, and ended."""
    survived: int
    """Of those, with the bits of the training that was left alone."""
    lost: int


def stress(num_kills: int, directory: Path, source: np.random.Generator, **settings: int) -> Counts:
    """Kills so many times; the directory gets the runs, and loses those that ended well."""
    whole = Training(directory / "whole", **settings)
    began = time.monotonic()
    process = start(whole)
    starting_seconds = wait_for_steps(process, whole.directory, 0) - began
    if process.communicate() and process.returncode:
        raise RuntimeError("stress: the training that is left alone ended in an error")
    seconds, expected = time.monotonic() - began, end_of(whole)
    kills = saving = starting = damaged = trainings = survived = 0
    while kills < num_kills:
        config = dataclasses.replace(whole, directory=directory / f"killed-{trainings}")
        killed, code, said = 0, None, ""
        while code is None:
            before = num_begun(config.directory)
            process = start(config)
            try:
                if kills == num_kills:  # the last training is let go on to its end
                    limit = None
                elif kills % 2 == 0:
                    wait_for_steps(process, config.directory, before)
                    limit = source.uniform(0, seconds - starting_seconds)
                else:
                    limit = source.uniform(0, seconds)
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills, killed = kills + 1, killed + 1
                starting += num_begun(config.directory) == before
                saving += any((config.directory / CHECKPOINTS).glob("*.orbax-checkpoint-tmp*"))
                damaged += is_damaged(config.directory / CHECKPOINTS)
            assert process.stderr is not None
            said = process.stderr.read().decode()
            process.stderr.close()
        if killed:
            trainings += 1
            same = code == 0 and end_of(config) == expected
            survived += same
            if not same:
                rich.print(f"[bold red]lost: {config.directory}, killed {killed} times, exit status {code}\n{said}")
                continue
        shutil.rmtree(config.directory)
    return Counts(kills, saving, starting, damaged, trainings, survived, trainings - survived)


def wait_for_steps(process: subprocess.Popen, directory: Path, before: int) -> float:
    """Waits until a process comes to its first step, or ends; returns the time."""
    while num_begun(directory) == before and process.poll() is None:
        time.sleep(0.01)
    return time.monotonic()


def num_begun(directory: Path) -> int:
    """How many processes have come to their first step: each of them has a file of events."""
    return len(list((directory / EVENTS).glob("*")))


def is_damaged(checkpoints: Path) -> bool:
    """Whether the newest checkpoint is; without any there is none to be damaged."""
    steps = [int(path.name) for path in checkpoints.glob("*") if path.name.isdigit()]
    return bool(steps) and damage_of(checkpoints / str(max(steps))) is not None


@dataclass(frozen=True)
class Settings:
    """How often to kill."""

    kills: int = 30
    seed: int = 0
    out: Path = ROOT / "benchmarks" / "results" / "stress.json"
    """The file that gets the counts."""


def main(settings: Settings) -> Counts:
    """Kills, counts and writes."""
    with tempfile.TemporaryDirectory() as directory:
        counts = stress(settings.kills, Path(directory), np.random.default_rng(settings.seed))
    rich.print(counts)
    result = {"jax": jax.__version__, "seed": settings.seed} | counts._asdict()
    write_json(settings.out, result)
    return counts


if __name__ == "__main__":
    with errors_told():
        if sys.argv[1:2] == ["train"]:
            train(tyro.cli(Training, args=sys.argv[2:]))
        else:
            sys.exit(main(tyro.cli(Settings, description=__doc__)).lost > 0)
