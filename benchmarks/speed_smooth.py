"""The lines of ``benchmarks.speed`` about smooth functions and metrics: ours beside sorts of JAX, and other libraries.

    python -m benchmarks.speed_smooth            # these lines alone, into results/speed_smooth.json

Each is a name, two compiled functions of no arguments, and the ratio that ours should have at most.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich

from benchmarks.comparison import Comparison, measure
from experiments.files import write_json
from jaxlab import metrics, smooth
from jaxlab._sorting import argsort

Line = tuple[str, Callable[[], Any], Callable[[], Any], float, float]
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
        made.append((f"rank at {temperature:g}, 128 x 10,000 / jnp.sort", rank, sort, 2.5, 0.2))
    order, plain_order = jax.jit(argsort), jax.jit(jnp.argsort)
    made.append(("order of 128 x 10,000 / jnp.argsort", lambda: order(long), lambda: plain_order(long), 1.0, 0.2))
    one, ten = (with_gradient(lambda x: smooth.rank(x, temperature=1e-3), x) for x in (short, long))
    made.append(("rank of 10,000 / of 1,000", ten, one, 15.0, 0.2))
    smooth_sort = with_gradient(lambda x: smooth.sort(x, temperature=1e-4), long)
    made.append(("sort at 0.0001, 128 x 10,000 / jnp.sort", smooth_sort, sort, 2.5, 0.2))
    mask = with_gradient(lambda x: smooth.top_k_mask(x, 1000, temperature=0.01), long)
    top = with_gradient(lambda x: jax.lax.top_k(x, 1000)[0], long)
    made.append(("top_k_mask, 1,000 of 128 x 10,000 / lax.top_k", mask, top, 5.0, 0.1))
    return [Comparison(*line) for line in made]


def softjax_lines() -> list[Line]:
    """Ranks by isotonic regression: ours beside softjax's, at the same temperature (there times n - 1)."""
    softjax: Any = importlib.import_module("softjax")

    def theirs(x: jax.Array, temperature: float) -> jax.Array:
        softness = temperature * (x.shape[-1] - 1)
        options = {"method": "fast_soft_sort", "mode": "c0", "standardize": False, "descending": False}
        return softjax.rank(x, axis=-1, softness=softness, **options)

    few = scores(100, 2)
    np.testing.assert_allclose(theirs(few, 0.1), smooth.rank(few, temperature=0.1), atol=1e-2)
    made: list[Line] = []
    for size, temperature, aim, seconds in (
        (1000, 0.1, 1.0, 0.3),
        (10_000, 1e-3, 1 / 20, 10.0),
        (10_000, 0.1, 1 / 20, 20.0),
    ):
        x = scores(size)
        ours, other = (
            with_gradient(functools.partial(function, temperature=temperature), x) for function in (smooth.rank, theirs)
        )
        made.append((f"rank at {temperature:g}, 128 x {size:,} / softjax", ours, other, aim, seconds))
    return made


def torchsort_lines() -> list[Line]:
    """Ranks by isotonic regression: ours beside the compiled C++ of torchsort, which sorts faster than XLA."""
    torch: Any = importlib.import_module("torch")
    torchsort: Any = importlib.import_module("torchsort")

    made: list[Line] = []
    for size, aim in ((1000, 5.0), (10_000, 5.0)):
        x = scores(size)
        ours = with_gradient(lambda x: smooth.rank(x, temperature=0.1), x)
        leaf = torch.tensor(np.asarray(x), requires_grad=True)

        def theirs(leaf: Any = leaf) -> Any:
            leaf.grad = None
            torchsort.soft_rank(leaf, regularization_strength=0.1).square().sum().backward()
            gradient: Any = leaf.grad
            return gradient.numpy()

        np.testing.assert_allclose(ours()[1], theirs(), rtol=1e-2, atol=1e-2 * float(np.abs(theirs()).max()))
        made.append((f"rank, 128 x {size:,} / torchsort", ours, theirs, aim, 0.3))
    return made


def fast_soft_sort_lines() -> list[Line]:
    """The value of ranks alone: ours beside a loop over rows of fast-soft-sort (its JAX operations do not compile)."""
    operations: Any = importlib.import_module("fast_soft_sort.numpy_ops")

    x = scores(10_000)
    rows = np.asarray(x, np.float64)
    compiled = jax.jit(lambda x: smooth.rank(x, temperature=0.1))

    def theirs() -> Any:
        return [operations.SoftRank(row, regularization_strength=0.1).compute() for row in rows]

    np.testing.assert_allclose(compiled(x), np.stack(theirs()), rtol=1e-3, atol=1)
    return [("rank without gradient, 128 x 10,000 / fast-soft-sort", lambda: compiled(x), theirs, 15.0, 0.3)]


def rax_lines() -> list[Line]:
    """The NDCG of lists: ours beside rax's."""
    if importlib.util.find_spec("jax.util") is None:  # rax 0.4.0 takes one decorator from where it no longer is
        module: Any = types.ModuleType("jax.util")
        module.wraps = lambda function, **_: functools.wraps(function)
        sys.modules["jax.util"] = module
        jax.util = module  # pyright: ignore[reportAttributeAccessIssue]
    rax: Any = importlib.import_module("rax")

    x = scores(500)
    gains = jnp.abs(jnp.round(scores(500)[::-1]))
    ours = jax.jit(jax.value_and_grad(lambda x: jnp.mean(jax.vmap(metrics.ndcg)(x, gains))))
    approximate = rax.approx_t12n(rax.ndcg_metric)
    theirs = jax.jit(jax.value_and_grad(lambda x: -approximate(x, gains)))
    return [("ndcg, 128 lists of 500 / rax", lambda: ours(x), lambda: theirs(x), 1.5, 0.2)]


def metrax_lines() -> list[Line]:
    """The hard precision of a large batch, as a state and its value: ours beside metrax's."""
    metrax: Any = importlib.import_module("metrax")

    logits = scores(2**18, 1)[0]
    labels = (scores(2**18, 2)[1] > 1).astype(jnp.int32)
    precision = metrics.precision(metrics.binary(temperature=0.0))
    ours = jax.jit(lambda logits: metrics.evaluate(precision, logits, labels))
    theirs = jax.jit(lambda logits: metrax.Precision.from_model_output(logits, labels, threshold=0.0).compute())
    return [("precision of 262,144 / metrax", lambda: ours(logits), lambda: theirs(logits), 1.5, 0.01)]


def peer_lines() -> list[Comparison]:
    """Ours beside other libraries, as far as they are installed and run."""
    made = []
    for make in (softjax_lines, torchsort_lines, fast_soft_sort_lines, rax_lines, metrax_lines):
        try:
            lines = make()
            for _, _, theirs, *_ in lines[:1]:
                jax.block_until_ready(theirs())
            made += [Comparison(*line) for line in lines]
        except Exception as error:  # an installed library may fail with this JAX
            rich.print(f"[yellow]left out: {make.__name__}: {type(error).__name__}: {error}")
    return made


def auc_bytes(size: int = 8192) -> int:
    """Bytes of temporary memory of the smooth AUC of so many scores, value and gradient."""
    arguments = jnp.zeros(size), jnp.zeros(size, jnp.int32)
    program = jax.jit(jax.value_and_grad(metrics.roc_auc)).lower(*arguments).compile()
    analysis: Any = program.memory_analysis()
    return analysis.temp_size_in_bytes


def main(rounds: int = 9, out: Path = Path("benchmarks/results")) -> None:
    """Times these lines alone, with the other libraries that are installed.

    Args:
      rounds: pairs of timed runs for each line.
      out: directory that gets speed_smooth.json.
    """
    rows = []
    for line in lines() + peer_lines():
        row = measure(line, rounds)
        quartiles = f"{row['quartiles'][0]:.3f} to {row['quartiles'][1]:.3f}"
        rich.print(f"{row['name']}: {row['ratio']:.3f} ({quartiles}), at most {row['aim']:.3g}")
        rows.append(row)
    memory = auc_bytes()
    rich.print(f"temporary memory of the smooth AUC of 8,192 scores: {memory / 2**20:.2f} MiB (at most 16)")
    versions = {}
    for name in ("jax", "jaxlib", "softjax", "torch", "torchsort", "fast_soft_sort", "rax", "google-metrax"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    results = {
        "rows": rows,
        "auc_bytes": memory,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": versions,
    }
    write_json(out / "speed_smooth.json", results)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
