"""What a small sample does to a curved function of a mean: six tables and a figure.

    python -m experiments.biased_unbiased        # 50 seconds on one core
    python -m experiments.biased_unbiased --help

The standard deviation, the F-measure's gradient, the similarity of independent representations, the discrepancy of
equal laws, the logarithm of a mean weight: each is a function g of means, or a mean over pairs of which some are a
sample with itself. Its error has the sign of g's curvature, and falls with the size of the sample. README.md explains
the tables.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich
import tyro
from matplotlib.figure import Figure
from rich.table import Table

from experiments.files import errors_told, save_figure, write_json
from jaxlab import metrics, moments

Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Settings of the measurement."""

    out: Path = Path("runs/biased_unbiased")
    """Directory for tables.json and biases.png; the committed ones lie beside this file."""
    replicates: int = 10_000
    """Independent samples behind each number."""
    population: int = 2_000_000
    """Examples that stand for all of them, for the F-measure."""
    seed: int = 0


TINY = Config(replicates=200, population=5_000)


def replicate(key: jax.Array, function: Any, count: int) -> Any:
    """``function(key)`` for independent keys: mean and standard error of each of the results, by name."""
    names: list[str] = []

    def named(key: jax.Array) -> dict[str, jax.Array]:
        results = function(key)
        names[:] = results  # JAX sorts the keys of what it returns
        return results

    samples = jax.jit(lambda keys: jax.lax.map(named, keys, batch_size=500))(jax.random.split(key, count))
    return {name: (float(samples[name].mean()), float(samples[name].std() / count**0.5)) for name in names}


def rows_of(key: jax.Array, cases: list[tuple[Row, Any]], count: int) -> list[Row]:
    """One row for each case: what it is, and the replicated results by name."""
    keys = jax.random.split(key, len(cases))
    return [{**names, **replicate(k, function, count)} for k, (names, function) in zip(keys, cases, strict=True)]


def spread(key: jax.Array, config: Config) -> list[Row]:
    """Variance and standard deviation of n standard normal numbers; the truth is 1."""

    def of(n):
        def function(key):
            x = jax.random.normal(key, (n,))
            return {
                "variance / n": moments.variance(x, unbiased=False),
                "variance / (n - 1)": moments.variance(x),
                "sd / n": moments.standard_deviation(x, unbiased=False),
                "sd / (n - 1)": jnp.sqrt(moments.variance(x)),
                "sd / c4": moments.standard_deviation(x),
                "jackknife of sd / n": moments.jackknife(
                    lambda x: jnp.sqrt(moments.variance(x, unbiased=False) + 1e-30)
                )(x).value,
            }

        return function

    return rows_of(key, [({"n": n}, of(n)) for n in (3, 5, 10, 30)], config.replicates)


PREVALENCE, SEPARATION, THRESHOLD = 0.05, 1.5, 1.5
F1 = metrics.f_beta(metrics.binary(temperature=0.3))


def draw(key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Scores and labels: N(1.5, 1) for the positives, one in twenty, and N(0, 1) for the others."""
    label_key, score_key = jax.random.split(key)
    labels = jax.random.bernoulli(label_key, PREVALENCE, (size,)).astype(jnp.int32)
    return SEPARATION * labels.astype(jnp.float32) + jax.random.normal(score_key, (size,)), labels


def f_measure(key: jax.Array, config: Config) -> list[Row]:
    """The derivative of the smooth F1 with respect to the decision threshold, on minibatches and for all."""
    key, population_key = jax.random.split(key)
    scores, labels = draw(population_key, config.population)
    state = metrics.state_of(F1, scores - THRESHOLD, labels)
    truth = float(-jax.grad(lambda t: metrics.loss(F1)(scores - t, labels))(THRESHOLD))

    def of(size):
        def function(key):
            scores, labels = draw(key, size)

            def slope(value):
                return jax.grad(lambda threshold: value(scores - threshold, labels))(THRESHOLD)

            return {
                "value": metrics.evaluate(F1, scores - THRESHOLD, labels),
                "naive": slope(lambda logits, labels: metrics.evaluate(F1, logits, labels)),
                "jackknife": slope(lambda logits, labels: metrics.jackknife_metric(F1)(logits, labels).value),
                "delta": slope(lambda logits, labels: metrics.delta_metric(F1)(logits, labels).value),
                "linearised": slope(lambda logits, labels: -metrics.linearize(F1, state)(logits, labels)),
            }

        return function

    rows = rows_of(key, [({"batch": size}, of(size)) for size in (8, 16, 32, 128)], config.replicates)
    everything: Row = {"batch": "all", "value": (float(metrics.value_of(F1, state)), 0.0)}
    return [*rows, {**everything, **dict.fromkeys(("naive", "jackknife", "delta", "linearised"), (truth, 0.0))}]


def alignment(key: jax.Array, config: Config) -> list[Row]:
    """Linear CKA of independent normal representations of 50 examples; the truth is 0."""

    def of(dim):
        def function(key):
            x, y = jax.random.normal(key, (2, 50, dim))
            return {
                "biased": moments.centered_kernel_alignment(x, y, unbiased=False),
                "unbiased parts": moments.centered_kernel_alignment(x, y),
            }

        return function

    return rows_of(key, [({"dimensions": d}, of(d)) for d in (10, 100, 1000)], max(20, config.replicates // 200))


def discrepancy(key: jax.Array, config: Config) -> list[Row]:
    """Squared MMD of two samples of one law, N(0, 1); the truth is 0."""

    def of(n):
        def function(key):
            x, y = jax.random.normal(key, (2, n, 1))
            return {"V": moments.mmd(x, y, unbiased=False), "U": moments.mmd(x, y)}

        return function

    return rows_of(key, [({"n": n}, of(n)) for n in (16, 64)], max(100, config.replicates // 4))


def log_mean(key: jax.Array, config: Config) -> list[Row]:
    """The logarithm of the mean of n weights exp(N(0, 1)), less the truth, 1/2."""

    def of(n):
        def function(key):
            logits = jax.random.normal(key, (n,))
            jackknifed = moments.log_mean_exp(logits)
            return {
                "plug-in": jackknifed.value + jackknifed.bias - 0.5,
                "delta": moments.delta(jnp.log)(jnp.exp(logits)).value - 0.5,
                "jackknife": jackknifed.value - 0.5,
            }

        return function

    return rows_of(key, [({"n": n}, of(n)) for n in (8, 32)], config.replicates)


def randomised(key: jax.Array, config: Config) -> list[Row]:
    """The same logarithm without bias: multilevel, from a coarse estimate of 8 weights."""
    estimate = moments.multilevel(jnp.log, num_base=8, rate=0.6, max_level=6)

    def function(key):
        return {"multilevel": estimate(key, lambda key: jnp.exp(jax.random.normal(key))) - 0.5}

    cost = 8 + sum(0.6 * 0.4**level * 16 * 2**level for level in range(7))
    return rows_of(key, [({"mean number of weights": round(cost, 1)}, function)], max(100, config.replicates // 4))


TABLES = {
    "spread": spread,
    "f_measure": f_measure,
    "alignment": alignment,
    "discrepancy": discrepancy,
    "log_mean": log_mean,
    "randomised": randomised,
}


def show(title: str, rows: list[Row]) -> None:
    """Prints a table: mean and standard error."""
    table = Table(*rows[0], title=title, title_justify="left")
    for row in rows:
        cells = (f"{row[n][0]:+.4f} ± {row[n][1]:.4f}" if isinstance(row[n], tuple) else str(row[n]) for n in rows[0])
        table.add_row(*cells)
    rich.print(table)


HEADLINES = ("f_measure", "alignment")
COMMITTED = Path(__file__).with_name("tables.json")


def largest_z(tables: dict[str, list[Row]], others: dict[str, list[Row]]) -> float:
    """The largest difference between the headline tables of two runs, in standard errors of the difference."""
    scores = [0.0]
    for name in HEADLINES:
        for row, other in zip(tables[name], others[name], strict=True):
            for column in row:
                if isinstance(row[column], str | int) or 0 in (row[column][1], other[column][1]):
                    continue  # the size of the sample, or what was not sampled
                (mean, error), (other_mean, other_error) = row[column], other[column]
                scores.append(abs(mean - other_mean) / (error**2 + other_error**2) ** 0.5)
    return max(scores)


def draw_figure(tables: dict[str, list[Row]], path: Path) -> None:
    """Three panels: the F-measure's gradient, CKA, and the logarithm's bias."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    *batches, everything = tables["f_measure"]
    sizes = [row["batch"] for row in batches]
    for name in ("naive", "delta", "jackknife", "linearised"):
        mean, error = np.array([row[name] for row in batches]).T
        left.errorbar(sizes, mean, 2 * error, marker="o", capsize=3, label=name)
    left.axhline(everything["naive"][0], color="black", linewidth=1, label="all the data")
    left.axhline(0, color="grey", linewidth=0.5, linestyle=":")
    left.set(xscale="log", xlabel="batch size", title="derivative of smooth F1 (5% positives)")
    left.set_xticks(sizes, [str(size) for size in sizes])
    left.minorticks_off()
    left.legend(fontsize=8)
    place = np.arange(len(tables["alignment"]))
    for shift, name in ((-0.2, "biased"), (0.2, "unbiased parts")):
        values, errors = np.array([row[name] for row in tables["alignment"]]).T
        middle.bar(place + shift, values, 0.4, yerr=2 * errors, label=name)
    middle.set_xticks(place, [str(row["dimensions"]) for row in tables["alignment"]])
    middle.axhline(0, color="black", linewidth=1)
    middle.set(xlabel="dimensions", title="CKA of independent data (50 examples)")
    middle.legend(fontsize=8)
    place = np.arange(len(tables["log_mean"]))
    for shift, name in ((-0.25, "plug-in"), (0, "delta"), (0.25, "jackknife")):
        values, errors = np.array([row[name] for row in tables["log_mean"]]).T
        right.bar(place + shift, values, 0.25, yerr=2 * errors, label=name)
    right.set_xticks(place, [str(row["n"]) for row in tables["log_mean"]])
    right.axhline(0, color="black", linewidth=1)
    right.set(xlabel="number of weights", title="bias of the log of a mean weight")
    right.legend(fontsize=8)
    save_figure(path, figure)


def main(config: Config) -> dict[str, list[Row]]:
    """Measures and prints all tables; writes them and the figure."""
    keys = jax.random.split(jax.random.key(config.seed), len(TABLES))
    tables = {}
    for key, (name, measure) in zip(keys, TABLES.items(), strict=True):
        tables[name] = measure(key, config)
        show(measure.__doc__ or name, tables[name])
    write_json(config.out / "tables.json", tables)
    draw_figure(tables, config.out / "biases.png")
    if COMMITTED.exists():
        z = largest_z(tables, json.loads(COMMITTED.read_text()))
        rich.print(f"largest difference of a headline number to the committed tables: {z:.1f} standard errors")
    return tables


if __name__ == "__main__":
    with errors_told():
        main(tyro.cli(Config, description=__doc__))
