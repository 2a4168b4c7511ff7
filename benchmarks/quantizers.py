"""Quantizers beside one another: the same auto-encoder, data and budget, several seeds each.

    python -m benchmarks.quantizers                    # ten quantizers, 5 seeds; goes on where it was killed
    python -m benchmarks.quantizers --names ema fsq    # some of them: their rows are added to those that are there

Each quantizer is put into the auto-encoder of ``experiments/vqvae_pixelcnn``, with its settings as they stand there and
fewer channels. The seeds differ in initial parameters and in batches. Measured on all test images.
"""

import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import rich
import tyro
from jax import lax
from rich.table import Table

from experiments.files import errors_told, write_atomically, write_json
from experiments.images import Labelled
from experiments.runs import Run, progress
from experiments.vqvae_pixelcnn.model import Model, QuantizerName, VqVae, quantizer_of
from experiments.vqvae_pixelcnn.train import Data, built, load
from jaxlab import quantize

CHUNK = 500
COMPARED: tuple[QuantizerName, ...] = (
    "gradient",
    "ema",
    "ema_restart",
    "rotation",
    "diveq",
    "sim",
    "fsq",
    "lfq",
    "bsq",
    "gumbel",
)
#: Of each quantizer by seed: key and heading.
MEASURES = {
    "psnr": "test PSNR, dB",
    "snr": "SNR of quantization, dB",
    "perplexity": "perplexity",
    "used": "codes used, %",
    "bits": "marginal bits of an image",
}


@dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    names: tuple[QuantizerName, ...] = COMPARED
    """Which quantizers."""
    runs: Path = Path("runs/quantizers")
    """Directory of the runs, one for each quantizer."""
    out: Path = Path("benchmarks/results")
    """Directory that gets quantizers.json and quantizers.md."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=lambda: Model(hidden=24, residual_hidden=12, code_dim=16))
    num_seeds: int = 5
    num_steps: int = 5_000
    batch_size: int = 32
    seeds_at_once: int = 1
    """How many seeds one step trains, by vmap: 1 is fastest on a CPU, all of them on an accelerator."""
    block: int = 100
    """Steps in one compiled call."""
    save_every: int = 500


def rows_of_batches(config: Config, start: int, length: int, num_images: int) -> np.ndarray:
    """Which images are in the batches of some steps: [seeds, steps, batch]; any process can make them again."""
    return np.array(
        [
            [
                np.random.default_rng([seed, step]).integers(num_images, size=config.batch_size)
                for step in range(start, start + length)
            ]
            for seed in range(config.num_seeds)
        ]
    )


@functools.cache
def programs(functions: VqVae, seeds_at_once: int) -> tuple[Callable, Callable]:
    """Compiled, of all seeds: (keys, images) to their first states; and (keys, states, number of the first step, rows
    of the images [seeds, steps, batch], images) to their states after these steps, and metrics [seeds, steps].
    """

    def initial(keys, images):
        return lax.map(lambda key: functions.init(key, images), keys)

    def train_block(keys, states, first, rows, images):
        def train_one(given):
            key, state, rows = given

            def step(state, given):
                number, rows = given
                return functions.step(jax.random.fold_in(key, number), state, images[rows])

            return lax.scan(step, state, (first + jnp.arange(rows.shape[0]), rows))

        return lax.map(train_one, (keys, states, rows), batch_size=seeds_at_once)

    return jax.jit(initial), jax.jit(train_block, donate_argnums=1)


def trained(config: Config, name: QuantizerName, images: np.ndarray) -> tuple[Any, Any, float]:
    """The model, its states after training (with an axis of seeds), and the CPU seconds of a step of one seed."""
    functions = built(replace(config.model, quantizer=name), images)
    initial, train_block = programs(functions, config.seeds_at_once)
    keys = jax.random.split(jax.random.key(0), config.num_seeds)
    times, on_device = [], jnp.asarray(images)
    settings = replace(config, names=(name,))
    with Run(config.runs / name, settings, changeable=("runs", "out", "save_every")) as run:
        # 64 images and more: as many vectors as codes, and typical of a batch in number.
        sample = images[np.random.default_rng(2**31).integers(len(images), size=max(config.batch_size, 64))]
        step, states = run.restore(initial(keys, sample))
        with progress(name, config.num_steps, step) as advance:
            while step < config.num_steps:
                length = min(config.block, config.num_steps - step)
                rows = rows_of_batches(config, step, length, len(images))
                start = time.process_time()
                states, metrics = train_block(keys, states, jnp.asarray(step), rows, on_device)
                jax.block_until_ready(metrics)
                times.append((time.process_time() - start) / (length * config.num_seeds))
                step += length
                means = {measure: values.mean(1) for measure, values in metrics.items()}
                run.log(step, **means)
                advance(step, error=float(means["squared_error"].mean()))
                if step % config.save_every < length or step == config.num_steps:
                    run.save(step, states)
        states = jax.tree.map(np.asarray, states)
        # Times are no part of a run, which ends in the same bits whenever it is killed.
        record = run.directory / "seconds.json"
        if times:
            write_atomically(record, json.dumps(float(np.median(times))).encode())
    return functions, states, json.loads(record.read_text())


def measured(config: Config, name: QuantizerName, train: Labelled, test: Labelled) -> dict[str, Any]:
    """What one quantizer reaches on the test images: for each measure, its values by seed."""
    functions, states, seconds = trained(config, name, train.images)
    quantizer = quantizer_of(replace(config.model, quantizer=name))[0]

    @jax.jit
    def part(state, images):
        vectors, codes = functions.encode(state, images)
        values = quantizer.decode(state.params["quantizer"], state.quantizer_state, codes)
        usage = quantize.code_usage(vectors, values, codes, num_codes=functions.num_codes)
        error = jnp.sum((functions.decode(state, codes) - images.astype(jnp.float32) / 255) ** 2)
        return usage, error

    row: dict[str, Any] = {"name": name, **{measure: [] for measure in MEASURES}}
    for seed in range(config.num_seeds):
        state = jax.tree.map(lambda leaf, seed=seed: leaf[seed], states)
        parts = [part(state, test.images[start : start + CHUNK]) for start in range(0, len(test.images), CHUNK)]
        usage = parts[0][0]
        for other, _ in parts[1:]:
            usage = usage.merge(other)
        error = float(np.sum([error for _, error in parts], dtype=np.float64)) / test.images.size
        positions = int(usage.num_vectors) // len(test.images)
        row["psnr"].append(-10 * float(np.log10(error)))
        row["snr"].append(float(usage.signal_to_noise()))
        # Of vectors with several codes: the geometric mean, the mean, and the sum over them.
        row["perplexity"].append(float(np.exp2(np.mean(usage.marginal_bits()))))
        row["used"].append(100 * (1 - float(np.mean(usage.dead_fraction()))))
        row["bits"].append(positions * float(np.sum(usage.marginal_bits())))
    return {**row, "cpu_seconds_of_a_step": seconds}


def budget(config: Config) -> dict[str, Any]:
    """What all rows of one table have in common."""
    return {
        "data": config.data.name,
        "num_seeds": config.num_seeds,
        "num_steps": config.num_steps,
        "batch_size": config.batch_size,
        "hidden": config.model.hidden,
        "code_dim": config.model.code_dim,
        "num_codes": config.model.num_codes,
    }


def earlier_rows(config: Config) -> dict[str, dict[str, Any]]:
    """The rows by name that earlier calls wrote; those of another budget are not mixed with ours."""
    path = config.out / "quantizers.json"
    if not path.is_file():
        return {}
    found = json.loads(path.read_text())
    if found["budget"] != budget(config):
        raise SystemExit(
            f"{path} has rows of another budget, {found['budget']}; this call has {budget(config)}:"
            " give another directory with --out, or move the file away"
        )
    # A row that an older version wrote, with fewer measures, is measured again.
    return {row["name"]: row for row in found["rows"] if row.keys() >= MEASURES.keys()}


def summary(values: list[float]) -> str:
    """Mean and standard error over seeds."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{np.mean(values):.4g} ± {error:.2g}"


def write_table(config: Config, rows: list[dict[str, Any]]) -> None:
    """Writes the rows as JSON and as a table, with the budget above it."""
    about = {"budget": budget(config), "cores": os.cpu_count(), "jax": jax.__version__, "rows": rows}
    write_json(config.out / "quantizers.json", about)
    header = ("quantizer", *MEASURES.values(), "CPU ms a step")
    lines = [
        f"{config.data.name}, {config.num_seeds} seeds, {config.num_steps:,} steps of {config.batch_size} images,"
        f" {config.model.hidden} channels, {config.model.num_codes} codes of {config.model.code_dim} features (fewer"
        " where the codes give them); mean ± standard error over seeds, on all test images.",
        "",
        f"| {' | '.join(header)} |",
        "|" + " --- |" * len(header),
    ]
    table = Table(*header)
    for row in rows:
        cells = [row["name"], *(summary(row[measure]) for measure in MEASURES)]
        cells.append(f"{1e3 * row['cpu_seconds_of_a_step']:.1f}")
        table.add_row(*cells)
        lines.append(f"| {' | '.join(cells)} |")
    write_atomically(config.out / "quantizers.md", ("\n".join(lines) + "\n").encode())
    rich.print(table)


def main(config: Config) -> list[dict[str, Any]]:
    """Trains and measures quantizers; writes the table after each, and keeps the rows of earlier calls."""
    train, test = load(config.data)
    by_name = earlier_rows(config)
    for name in config.names:
        by_name[name] = measured(config, name, train, test)
        write_table(config, [by_name[known] for known in get_args(QuantizerName) if known in by_name])
    return [by_name[name] for name in config.names]


if __name__ == "__main__":
    with errors_told():
        main(tyro.cli(Config, description=__doc__))
