"""Quantizers beside one another: the same auto-encoder, data and budget, several seeds each.

    python -m benchmarks.quantizers                    # 5 seeds, 5,000 steps of each; goes on where it was killed
    python -m benchmarks.quantizers --names ema fsq    # some of them

Each quantizer is put into the auto-encoder of ``experiments/vqvae_pixelcnn`` with its settings as they stand there. The
seeds differ in initial parameters and in batches, and are trained at once, by ``vmap``. Measured on all test images.
"""

import json
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import rich
import tyro
from rich.table import Table

from experiments.images import Labelled
from experiments.runs import Run, progress, write_atomically
from experiments.vqvae_pixelcnn.model import Model, QuantizerName, quantizer_of, vqvae
from experiments.vqvae_pixelcnn.train import Data, load
from jaxlab import quantize

CHUNK = 500


@dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    names: tuple[QuantizerName, ...] = get_args(QuantizerName)
    """Which quantizers."""
    runs: Path = Path("runs/quantizers")
    """Directory of the runs, one for each quantizer."""
    out: Path = Path("benchmarks/results")
    """Directory that gets quantizers.json and quantizers.md."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    num_seeds: int = 5
    num_steps: int = 5_000
    batch_size: int = 64
    save_every: int = 500


def trained(config: Config, name: QuantizerName, images: np.ndarray) -> tuple[Any, Any, float]:
    """The model, its states after training (with an axis of seeds), and the seconds of a step of all seeds together."""
    model = replace(config.model, quantizer=name)
    functions = vqvae(model, images.shape[1:], float((images / 255.0).var()))
    keys = jax.random.split(jax.random.key(0), config.num_seeds)

    def batches(step: int, size: int) -> np.ndarray:
        rows = [
            np.random.default_rng([seed, step]).integers(len(images), size=size) for seed in range(config.num_seeds)
        ]
        return images[np.stack(rows)]

    @jax.jit
    def initial(keys, images):
        return jax.vmap(functions.init)(keys, images)

    def train_step(keys, states, step, images):
        folded = jax.vmap(lambda key: jax.random.fold_in(key, step))(keys)
        return jax.vmap(functions.step)(folded, states, images)

    train_step = jax.jit(train_step, donate_argnums=1)
    times = []
    settings = replace(config, names=(name,))
    with Run(config.runs / name, settings, changeable=("runs", "out", "save_every")) as run:
        step, states = run.restore(initial(keys, batches(2**31, max(config.batch_size, 64))))
        with progress(name, config.num_steps, step) as advance:
            while step < config.num_steps:
                start = time.process_time()
                states, metrics = train_step(keys, states, jnp.asarray(step), batches(step, config.batch_size))
                jax.block_until_ready(metrics)
                times.append(time.process_time() - start)
                step += 1
                if step % 100 == 0:
                    run.log(step, **metrics)
                    advance(step, error=float(metrics["squared_error"].mean()))
                if step % config.save_every == 0 or step == config.num_steps:
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

    rows: dict[str, list[float]] = {"psnr": [], "perplexity": [], "used": [], "bits": []}
    for seed in range(config.num_seeds):
        state = jax.tree.map(lambda leaf, seed=seed: leaf[seed], states)
        parts = [part(state, test.images[start : start + CHUNK]) for start in range(0, len(test.images), CHUNK)]
        usage = parts[0][0]
        for other, _ in parts[1:]:
            usage = usage.merge(other)
        error = float(np.sum([error for _, error in parts], dtype=np.float64)) / test.images.size
        positions = int(usage.num_vectors) // len(test.images)
        rows["psnr"].append(-10 * float(np.log10(error)))
        rows["perplexity"].append(float(usage.perplexity()))
        rows["used"].append(100 * (1 - float(usage.dead_fraction())))
        rows["bits"].append(positions * float(usage.marginal_bits()))
    return {"name": name, **rows, "cpu_seconds_of_a_step": seconds / config.num_seeds}


def summary(values: list[float]) -> str:
    """Mean and standard error over seeds."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{np.mean(values):.4g} ± {error:.2g}"


def main(config: Config) -> list[dict[str, Any]]:
    """Trains and measures every quantizer; prints the table and writes it after each of them."""
    train, test = load(config.data)
    rows: list[dict[str, Any]] = []
    config.out.mkdir(parents=True, exist_ok=True)
    for name in config.names:
        rows.append(measured(config, name, train, test))
        about = {
            "data": config.data.name,
            "num_seeds": config.num_seeds,
            "num_steps": config.num_steps,
            "batch_size": config.batch_size,
            "hidden": config.model.hidden,
            "num_codes": config.model.num_codes,
            "cores": os.cpu_count(),
            "jax": jax.__version__,
        }
        write_atomically(
            config.out / "quantizers.json", (json.dumps({**about, "rows": rows}, indent=1) + "\n").encode()
        )
    header = ("quantizer", "test PSNR, dB", "perplexity", "codes used, %", "marginal bits of an image", "CPU s a step")
    table = Table(*header)
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    for row in rows:
        cells = [row["name"], *(summary(row[column]) for column in ("psnr", "perplexity", "used", "bits"))]
        cells.append(f"{row['cpu_seconds_of_a_step']:.3f}")
        table.add_row(*cells)
        lines.append(f"| {' | '.join(cells)} |")
    rich.print(table)
    write_atomically(config.out / "quantizers.md", ("\n".join(lines) + "\n").encode())
    return rows


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
