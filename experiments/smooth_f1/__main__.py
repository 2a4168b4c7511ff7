"""Fine-tuning on the smooth F1 after cross entropy, on real imbalanced data: naive and linearised.

    python -m experiments.smooth_f1           # 15 seconds on one core
    python -m experiments.smooth_f1 --help

The scans of handwritten digits that come with scikit-learn, one digit (9% to 10%) against the rest, half of them for
training. A logistic regression is trained on cross entropy; from there it goes on with minibatches, on cross entropy,
on the smooth F1 of each batch, or on the smooth F1 linearised around a running state. F1 on the test half, decided at
0. The paper this follows is Su, "Function smoothing", 2019, who advises to fine-tune with such a loss and not to begin
with it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
from jax.sharding import PartitionSpec as P
from matplotlib.figure import Figure
from rich.table import Table
from sklearn.datasets import load_digits

from experiments import devices
from experiments.devices import BATCH
from experiments.files import errors_told, save_figure, write_json
from jaxlab import metrics


@dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    out: Path = Path("runs/smooth_f1")
    """Directory for results.json and f1.png."""
    digit: int = 8
    """The positive class."""
    num_seeds: int = 10
    batch_sizes: tuple[int, ...] = (8, 32)
    """Of the fine-tuning."""
    first_steps: int = 300
    """On cross entropy, with batches of 128."""
    steps: int = 2000
    """Of fine-tuning, a multiple of ``every``."""
    every: int = 50
    """Steps between measurements of the test F1, for the figure."""
    first_rate: float = 0.02
    rate: float = 0.002
    temperature: float = 1.0
    decay: float = 0.99
    """Of the running state."""


TINY = Config(num_seeds=2, batch_sizes=(8,), first_steps=5, steps=10, every=5)

SOFT = metrics.binary()
HARD_F1 = metrics.f_beta(metrics.binary(temperature=0.0))


class Split(NamedTuple):
    """Pixels in [0, 1] and bits, for training and testing."""

    x: jax.Array
    y: jax.Array
    test_x: jax.Array
    test_y: jax.Array


class TrainState(NamedTuple):
    """Weights and bias, the optimizer's state, and the running state of the metric."""

    params: dict[str, jax.Array]
    optimizer: Any
    running: Any


def load(digit: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and bits of all scans."""
    digits: Any = load_digits()
    return (digits.data / 16).astype(np.float32), (digits.target == digit).astype(np.int32)


def split(key: jax.Array, x: np.ndarray, y: np.ndarray) -> Split:
    """A random half for training."""
    order = jax.random.permutation(key, len(y))
    half = len(y) // 2
    train, test = order[:half], order[half:]
    return Split(jnp.asarray(x)[train], jnp.asarray(y)[train], jnp.asarray(x)[test], jnp.asarray(y)[test])


def logits_of(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """The logits of a logistic regression."""
    return x @ params["weights"] + params["bias"]


def cross_entropy(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """In nats, the mean."""
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits_of(params, x), y.astype(x.dtype)))


def test_f1(state: TrainState, data: Split) -> jax.Array:
    """The F1 on the test half, decided at 0."""
    return metrics.evaluate(HARD_F1, logits_of(state.params, data.test_x), data.test_y)


def fit(
    key: jax.Array, data: Split, state: TrainState, loss: str, size: int, num: int, rate: float, config: Config
) -> tuple[TrainState, jax.Array]:
    """``num`` steps of Adam on minibatches drawn with replacement; the test F1 on the way."""
    f1 = metrics.f_beta(metrics.binary(temperature=config.temperature))
    optimizer = optax.adam(rate)

    def loss_fn(params, running, x, y):
        if loss == "cross entropy":
            return cross_entropy(params, x, y)
        logits = logits_of(params, x)
        return metrics.loss(f1)(logits, y) if loss == "naive F1" else metrics.linearize(f1, running)(logits, y)

    def step(state, key):
        rows = jax.random.randint(key, (size,), 0, data.y.shape[0])
        x, y = data.x[rows], data.y[rows]
        gradient = jax.grad(loss_fn)(state.params, state.running, x, y)
        updates, inner = optimizer.update(gradient, state.optimizer)
        # Used before it is updated: the running state does not depend on the batch that is measured around it.
        batch = metrics.state_of(f1, logits_of(state.params, x), y)
        running = metrics.decay_state(state.running, batch, decay=config.decay)
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(params, inner, running), None

    # All the training data, weighted as one batch.
    weights = jnp.full(data.y.shape, size / data.y.shape[0])
    start = metrics.state_of(f1, logits_of(state.params, data.x), data.y, weights=weights)
    start = metrics.decay_state(start, start)
    state = TrainState(state.params, optimizer.init(state.params), start)
    every = min(config.every, num)

    def steps(state, keys):
        state, _ = jax.lax.scan(step, state, keys)
        return state, test_f1(state, data)

    return jax.lax.scan(steps, state, jax.random.split(key, (num // every, every)))


LOSSES = ("cross entropy", "naive F1", "linearised F1")


def run(key: jax.Array, x: np.ndarray, y: np.ndarray, config: Config) -> dict[str, jax.Array]:
    """Test F1 of one seed: after cross entropy, and in the course of each fine-tuning."""
    split_key, first_key, key = jax.random.split(key, 3)
    data = split(split_key, x, y)
    params = {"weights": jnp.zeros(x.shape[1]), "bias": jnp.zeros(())}
    first, _ = fit(
        first_key,
        data,
        TrainState(params, None, None),
        "cross entropy",
        128,
        config.first_steps,
        config.first_rate,
        config,
    )

    results = {"before fine-tuning": test_f1(first, data)[None]}
    for size in config.batch_sizes:
        for loss in LOSSES:
            # The same batches for every loss: differences between them are paired.
            again = jax.random.fold_in(key, size)
            _, results[f"{loss}, batch {size}"] = fit(again, data, first, loss, size, config.steps, config.rate, config)
    return results


def figure_of(results: dict[str, np.ndarray], config: Config) -> Figure:
    """The test F1 in the course of the fine-tuning, one panel for each size of the batch."""
    figure = Figure(figsize=(5.5 * len(config.batch_sizes), 4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(config.batch_sizes), sharey=True))
    before = results["before fine-tuning"]
    for panel, size in zip(panels, config.batch_sizes, strict=True):
        for loss in LOSSES:
            values = np.concatenate([before, results[f"{loss}, batch {size}"]], 1)
            steps = np.arange(values.shape[1]) * config.every
            # The seeds differ by what is easy to classify: what counts is the change from where each began.
            error = (values - before).std(0, ddof=1) / len(values) ** 0.5
            (line,) = panel.plot(steps, values.mean(0), label=loss)
            panel.fill_between(
                steps, values.mean(0) - error, values.mean(0) + error, color=line.get_color(), alpha=0.15, linewidth=0
            )
        panel.axhline(before.mean(), color="grey", linewidth=1, linestyle=":")
        panel.set(xlabel="steps of fine-tuning", title=f"batches of {size}")
    panels[0].set_ylabel(f"test F1 (mean of {config.num_seeds} seeds)")
    panels[-1].legend(loc="lower right")
    return figure


def main(config: Config) -> dict[str, tuple[float, float]]:
    """Runs all seeds; prints and writes mean test F1 and standard error."""
    x, y = load(config.digit)
    keys = jax.random.split(jax.random.key(0), config.num_seeds)
    mesh = devices.mesh(config.num_seeds)

    def of_device(keys):
        return jax.lax.map(lambda key: run(key, x, y, config), keys)

    # Each device has seeds of its own, and the same bits for them as one device has.
    spread = jax.jit(jax.shard_map(of_device, mesh=mesh, in_specs=P(BATCH), out_specs=P(BATCH), check_vma=False))
    curves = devices.on_host(spread(devices.spread(mesh, keys)))
    names = (f"{loss}, batch {size}" for size in config.batch_sizes for loss in LOSSES)
    curves = {name: curves[name] for name in ("before fine-tuning", *names)}
    results = {name: curve[:, -1] for name, curve in curves.items()}
    baseline = results["before fine-tuning"]
    table = Table("loss of the fine-tuning", "test F1", "against before (paired)")
    summary = {}
    for name, values in results.items():
        errors = [z.std(ddof=1) / len(z) ** 0.5 for z in (values, values - baseline)]
        summary[name] = (float(values.mean()), float(errors[0]))
        change = values.mean() - baseline.mean()
        table.add_row(name, f"{values.mean():.4f} ± {errors[0]:.4f}", f"{change:+.4f} ± {errors[1]:.4f}")
    rich.print(f"{y.sum()} positives of {len(y)}, {config.num_seeds} seeds")
    rich.print(table)
    write_json(config.out / "results.json", summary)
    save_figure(config.out / "f1.png", figure_of(curves, config))
    return summary


if __name__ == "__main__":
    with errors_told():
        main(devices.command_line(Config, __doc__))
