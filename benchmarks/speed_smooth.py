"""The lines of ``benchmarks.speed`` about smooth functions and metrics: ours beside sorts of JAX, and other libraries.

    python -m benchmarks.speed_smooth            # these lines alone, into results/speed_smooth.json

Each is a name, two compiled functions of no arguments, and the ratio that ours should have at most.
"""

import importlib
import importlib.metadata
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import rich

from benchmarks.comparison import Comparison, measure
from jaxlab import metrics, smooth

Line = tuple[str, Callable[[], Any], Callable[[], Any], float]
ROWS = 128


def scores(size: int, rows: int = ROWS) -> jax.Array:
    """Standard normal numbers [rows, size]."""
    return jax.random.normal(jax.random.key(0), (rows, size))


def with_gradient(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> Callable[[], Any]:
    """Value and gradient of the sum of squares of a function's result, compiled, at x."""
    compiled = jax.jit(jax.value_and_grad(lambda x: jnp.sum(function(x) ** 2)))
    return lambda: compiled(x)


def lines() -> list[Comparison]:
    """Ours beside JAX's own sort and top-k, forward and gradient together."""
    short, long = scores(1000), scores(10_000)
    sort = with_gradient(jnp.sort, long)
    made: list[Line] = []
    for temperature in (0.1, 1e-4):
        rank = with_gradient(lambda x, t=temperature: smooth.rank(x, temperature=t), long)
        made.append((f"rank at {temperature:g}, 128 x 10,000 / jnp.sort", rank, sort, 2.5))
    one, ten = (with_gradient(lambda x: smooth.rank(x, temperature=1e-3), x) for x in (short, long))
    made.append(("rank of 10,000 / of 1,000", ten, one, 15.0))
    mask = with_gradient(lambda x: smooth.top_k_mask(x, 1000, temperature=0.01), long)
    top = with_gradient(lambda x: jax.lax.top_k(x, 1000)[0], long)
    made.append(("top_k_mask, 1,000 of 128 x 10,000 / lax.top_k", mask, top, 5.0))
    return [Comparison(*line) for line in made]


def softjax_lines() -> list[Line]:
    """Ranks by isotonic regression: ours beside softjax's."""
    softjax: Any = importlib.import_module("softjax")

    made: list[Line] = []
    for size, aim in ((1000, 1.0), (10_000, 1 / 20)):
        x = scores(size)
        ours = with_gradient(lambda x: smooth.rank(x, temperature=0.1), x)
        theirs = with_gradient(
            lambda x: softjax.rank(
                x, axis=-1, method="fast_soft_sort", mode="c0", softness=0.1, standardize=False, descending=False
            ),
            x,
        )
        made.append((f"rank, 128 x {size:,} / softjax", ours, theirs, aim))
    return made


def rax_lines() -> list[Line]:
    """The NDCG of lists: ours beside rax's."""
    rax: Any = importlib.import_module("rax")

    x = scores(500)
    gains = jnp.abs(jnp.round(scores(500)[::-1]))
    ours = jax.jit(jax.value_and_grad(lambda x: jnp.mean(jax.vmap(metrics.ndcg)(x, gains))))
    approximate = rax.approx_t12n(rax.ndcg_metric)
    theirs = jax.jit(jax.value_and_grad(lambda x: -approximate(x, gains)))
    return [("ndcg, 128 lists of 500 / rax", lambda: ours(x), lambda: theirs(x), 1.5)]


def metrax_lines() -> list[Line]:
    """The hard precision of a large batch, as a state and its value: ours beside metrax's."""
    metrax: Any = importlib.import_module("metrax")

    logits = scores(2**18, 1)[0]
    labels = (scores(2**18, 2)[1] > 1).astype(jnp.int32)
    precision = metrics.precision(metrics.binary(temperature=0.0))
    ours = jax.jit(lambda logits: metrics.evaluate(precision, logits, labels))
    theirs = jax.jit(lambda logits: metrax.Precision.from_model_output(logits, labels, threshold=0.0).compute())
    return [("precision of 262,144 / metrax", lambda: ours(logits), lambda: theirs(logits), 1.5)]


def peer_lines() -> list[Comparison]:
    """Ours beside other libraries, as far as they are installed and run."""
    made = []
    for make in (softjax_lines, rax_lines, metrax_lines):
        try:
            lines = make()
            for _, _, theirs, _ in lines:
                jax.block_until_ready(theirs())
            made += [Comparison(*line) for line in lines]
        except Exception as error:  # an installed library may fail with this JAX, as rax 0.4.0 does with 0.10
            rich.print(f"[yellow]left out: {make.__name__}: {type(error).__name__}: {error}")
    return made


def main(rounds: int = 9, out: Path = Path("benchmarks/results")) -> None:
    """Times these lines alone, with the other libraries that are installed.

    Args:
      rounds: pairs of timed runs for each line.
      out: directory that gets speed_smooth.json.
    """
    rows = [measure(line, rounds) for line in lines() + peer_lines()]
    for row in rows:
        rich.print(f"{row['name']}: {row['ratio']:.3f} ({row['quartiles'][0]:.3f} to {row['quartiles'][1]:.3f})")
    versions = {}
    for name in ("jax", "jaxlib", "softjax", "rax", "google-metrax"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    results = {
        "rows": rows,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": versions,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "speed_smooth.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
