"""How fast the two loops that could be fused further are on the accelerator that is here.

    python -m benchmarks.platform_speed                 # the device that JAX finds; prints JSON
    python -m benchmarks.platform_speed --out FILE --rounds 30
    python -m benchmarks.platform_speed --only wrong    # how often products of bfloat16 pick the wrong code

Nearest codes (32,768 vectors of 64 features, 512 and 8,192 codes; 1,024 codes of 8 and of 256 features), by the kernel
that is written for the platform and without it, and training steps of the ordered LSTM, beside the bare matrix products
that they cannot do without and beside the time that the chip's published speed leaves (``benchmarks.chips``). It
answers whether a hand-written kernel is worth its code, and which form of a sum over codes, of a chunk, of a loop is
the fastest there.

Calls are queued, ``--calls`` of them, and the last one is waited for: what is timed is the device, unless a call takes
less time there than its launch, which is a line of its own. Lines are timed in turn, in ``rounds``; the median counts.
It needs jax, jaxtyping, numpy and rich alone, to run where there is little more; so its options are argparse's.
"""

import argparse
import functools
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.chips import chip_of, roofline
from benchmarks.speed_recurrent import (
    PAPER,
    SMALL,
    Size,
    bare_products,
    data,
    naive_ordered,
    ordered_gates,
    ours,
    ours_ordered,
)
from experiments.files import errors_told, write_json
from jaxlab import quantize, recurrent, smooth
from jaxlab.quantize._sums import sums_by_products, sums_by_segments

VECTORS, FEATURES, CODES = 32_768, 64, (512, 8192)
OTHERS = ((1024, 8), (1024, 256))  # codes and features
KERNELS = {"": {}, ", without kernel": {"kernel": False}}
WIDE = Size("256, batch 512", (256, 256), 8, 64, 512)


def vectors_and_codes(num_codes: int, num_features: int = FEATURES) -> tuple[jax.Array, jax.Array]:
    """Vectors and a codebook, of one distribution."""
    generator = np.random.default_rng(0)
    x, codebook = (generator.normal(size=(rows, num_features)) for rows in (VECTORS, num_codes))
    return jnp.asarray(x, jnp.float32), jnp.asarray(codebook, jnp.float32)


def product(x: jax.Array, codebook: jax.Array, *, precision: Any = None, dtype: Any = jnp.float32) -> jax.Array:
    """All products of vectors and codes, stored."""
    return jnp.matmul(
        x.astype(dtype), codebook.astype(dtype).T, precision=precision, preferred_element_type=jnp.float32
    )


def codes_of_all_distances(x: jax.Array, codebook: jax.Array, *, precision: Any = None) -> jax.Array:
    """Nearest codes as one writes them down: the matrix of all distances, at JAX's default precision by default."""
    products = product(x, codebook, precision=precision)
    return jnp.argmin(jnp.sum(codebook**2, -1) / 2 - products, -1)


def ema_step(num_codes: int) -> Callable:
    """Values and gradient of a training step of the quantizer with moving averages."""
    quantizer = quantize.ema_vector_quantizer(num_codes=num_codes)

    def step(x, codebook):
        counts = jnp.full(num_codes, VECTORS / num_codes)
        state = quantize.EmaState(codebook, counts, counts[:, None] * codebook, jnp.ones(()))

        def loss(x):
            out, after = quantizer.apply(jax.random.key(0), (), state, x)
            return jnp.mean(out.values**2) + out.loss, (out.codes, after)

        return jax.value_and_grad(loss, has_aux=True)(x)

    return step


Line = tuple[str, Callable, tuple, dict[str, float]]


def code_lines() -> list[Line]:
    """Nearest codes, their sums, and a training step; with the work that the mathematics asks for."""
    lines: list[Line] = []
    for num_codes in CODES:
        x, codebook = vectors_and_codes(num_codes)
        codes = jax.random.randint(jax.random.key(1), (VECTORS,), 0, num_codes)
        flops = 2.0 * VECTORS * num_codes * FEATURES
        read = 4.0 * FEATURES * (VECTORS + num_codes)
        search = {"flops": flops, "exact_flops": flops, "num_bytes": read + 4 * VECTORS}
        stored = {"flops": flops, "num_bytes": read + 4 * VECTORS * num_codes}
        sums = {"flops": 1.0 * VECTORS * FEATURES, "num_bytes": read + 4 * VECTORS}
        name = f"{num_codes:,} codes"
        for kernel, given in KERNELS.items():
            for rounding, dtype in {"": None, ", bfloat16": jnp.bfloat16}.items():
                options, work = {"operand_dtype": dtype, **given}, search | {"exact_flops": flops * (dtype is None)}
                lines.append((f"nearest_code, {name}{rounding}{kernel}", partial_of(options), (x, codebook), work))
        for chunk in (1024, 4096, VECTORS):
            options = {"chunk_size": chunk, "kernel": False}
            line = f"nearest_code, {name}, without kernel, chunk {chunk:,}"
            lines.append((line, partial_of(options), (x, codebook), search))
        highest = lax.Precision.HIGHEST
        lines += [
            (f"all distances, {name}, HIGHEST", partial_of_all(highest), (x, codebook), search),
            (f"all distances, {name}, default", partial_of_all(None), (x, codebook), search),
            (f"product stored, {name}, HIGHEST", functools.partial(product, precision=highest), (x, codebook), stored),
            (f"product stored, {name}, default", product, (x, codebook), stored),
            (
                f"product stored, {name}, bfloat16",
                functools.partial(product, dtype=jnp.bfloat16),
                (x, codebook),
                stored,
            ),
            (f"sums of codes, {name}, scatter", sums_of(sums_by_segments, num_codes), (x, codes), sums),
            (f"sums of codes, {name}, products", sums_of(sums_by_products, num_codes), (x, codes), sums),
            (f"sums of one code, {name}, scatter", sums_of(sums_by_segments, num_codes), (x, 0 * codes), sums),
            (f"EMA step, {name}", ema_step(num_codes), (x, codebook), search),
        ]
    for num_codes, num_features in OTHERS:
        arrays, flops = vectors_and_codes(num_codes, num_features), 2.0 * VECTORS * num_codes * num_features
        work = {"flops": flops, "exact_flops": flops, "num_bytes": 4.0 * num_features * (VECTORS + num_codes)}
        for kernel, given in KERNELS.items():
            name = f"nearest_code, {num_codes:,} codes of {num_features} features{kernel}"
            lines.append((name, partial_of(given), arrays, work))
    return lines


def partial_of(options: dict[str, Any]) -> Callable:
    """``nearest_code`` with options, as a function of arrays alone."""
    return lambda x, codebook: quantize.nearest_code(x, codebook, **options)


def partial_of_all(precision: Any) -> Callable:
    """``codes_of_all_distances`` at one precision."""
    return functools.partial(codes_of_all_distances, precision=precision)


def sums_of(form: Callable, num_codes: int) -> Callable:
    """Counts and sums of the vectors of each code."""
    return lambda x, codes: form(x, codes, num_codes=num_codes)


def work_of(size: Size, num_gates: Callable[[int], int]) -> dict[str, float]:
    """Flops of the products of a training step; bytes of weights, gradients and windows, each read or written once."""
    flops, num_bytes = 0.0, 0.0
    for below, above in zip(size.dims[:-1], size.dims[1:], strict=True):
        width, rows = num_gates(above), size.num_steps * size.batch_size
        flops += 2.0 * rows * width * (3 * below + 3 * above)
        # Weights and their gradients once; pre-activations written, read, and their gradients written and read.
        num_bytes += 4.0 * (2 * width * (below + above) + rows * (below + 2 * above + 4 * width))
    return {"flops": flops, "num_bytes": num_bytes}


def recurrent_lines() -> list[Line]:
    """Training steps of recurrent networks."""
    lines: list[Line] = []
    for size in (SMALL, PAPER, WIDE):
        arguments, work = data(size, ordered_gates(size)), work_of(size, ordered_gates(size))
        plain, plain_work = data(size, lambda hidden: 4 * hidden), work_of(size, lambda hidden: 4 * hidden)
        all_kept = recurrent.Residuals.ALL
        lines += [
            (f"ordered_lstm {size.name}", ours_ordered(size), arguments, work),
            (f"ordered_lstm {size.name}, unroll 2", ours_ordered(size, unroll=2), arguments, work),
            (f"ordered_lstm {size.name}, unroll 8", ours_ordered(size, unroll=8), arguments, work),
            (f"ordered_lstm {size.name}, all kept", ours_ordered(size, residuals=all_kept), arguments, work),
            (f"cell in lax.scan {size.name}", naive_ordered(size), arguments, work),
            (f"bare matrix products {size.name}", bare_products(size), arguments, work),
            (f"lstm {size.name}", ours(size, recurrent.lstm), plain, plain_work),
        ]
    return lines


def order_lines() -> list[Line]:
    """Ranks, whose loop splits blocks until none of the batch can be split, beside a sort."""
    x = jax.random.normal(jax.random.key(0), (128, 10_000))
    work = {"flops": 0.0, "num_bytes": 8.0 * x.size}
    lines: list[Line] = [("jnp.sort of 128 x 10,000", jnp.sort, (x,), work)]
    for temperature in (1e-3, 1.0):
        ranks = jax.vmap(functools.partial(smooth.rank, temperature=temperature))
        lines.append((f"rank of 128 x 10,000 at {temperature:g}", ranks, (x,), work))
    return lines


def launch(x: jax.Array) -> jax.Array:
    """The smallest program."""
    return x + 1


def queued_seconds(step: Callable, arguments: tuple, calls: int) -> float:
    """Seconds of one of so many calls, queued."""
    start = time.perf_counter()
    result = None
    for _ in range(calls):
        result = step(*arguments)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def timed(lines: list[Line], rounds: int, calls: int) -> list[dict[str, Any]]:
    """Every line compiled, then timed in turn with the others; a line that does not compile or run says why."""
    rows, runs = [], []
    for name, step, arguments, work in lines:
        row: dict[str, Any] = {"name": name}
        rows.append(row)
        try:
            begin = time.perf_counter()
            compiled = jax.jit(step).lower(*arguments).compile()
            row["compile seconds"] = time.perf_counter() - begin
            row["temporary bytes"] = getattr(compiled.memory_analysis(), "temp_size_in_bytes", None)
            row["first seconds"] = queued_seconds(compiled, arguments, calls)
            runs.append((row, compiled, arguments, []))
        except Exception as error:  # one form that a platform refuses must not take the others' numbers along
            row["error"] = f"{type(error).__name__}: {str(error)[:300]}"
        chip = chip_of(jax.devices()[0].device_kind)
        if chip is not None and work:
            bound = roofline(chip, **work)
            row["roofline seconds"], row["bound"] = bound.seconds, bound.bound
        print(json.dumps(row), file=sys.stderr, flush=True)  # what is known so far, should the run be stopped
    for _ in range(rounds):
        for _, compiled, arguments, times in runs:
            times.append(queued_seconds(compiled, arguments, calls))
    for row, _, _, times in runs:
        low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
        row |= {"seconds": float(middle), "quartiles": [float(low), float(high)]}
        if "roofline seconds" in row:
            row["times roofline"] = float(middle) / row["roofline seconds"]
    return rows


def wrong_codes() -> dict[str, float]:
    """The share of vectors that get another code than in float64, by how the products are made.

    Operands rounded to bfloat16 are what a TPU multiplies float32 matrices with at JAX's default precision, so that
    rate is the same on every platform. It grows where codes lie far from 0 (by 8 standard deviations), unless a centre
    is subtracted first.
    """
    shares = {}
    for num_codes, shift in itertools.product(CODES, (0, 8)):
        x, codebook = (part + shift for part in vectors_and_codes(num_codes))
        wide, codes = np.asarray(x, np.float64), np.asarray(codebook, np.float64)
        right = np.concatenate(
            [np.argmin((codes**2).sum(-1) / 2 - part @ codes.T, -1) for part in np.array_split(wide, 16)]
        )
        ways = {
            "nearest_code": partial_of({}),
            "nearest_code, without kernel": partial_of({"kernel": False}),
            "nearest_code, bfloat16": partial_of({"operand_dtype": jnp.bfloat16}),
            "nearest_code, bfloat16 around a centre": partial_of(
                {"operand_dtype": jnp.bfloat16, "centre": jnp.mean(codebook, 0)}
            ),
            "all distances, default precision": codes_of_all_distances,
        }
        for name, way in ways.items():
            found = np.asarray(jax.jit(way)(x, codebook))
            shares[f"{name}, {num_codes:,} codes, mean {shift}"] = float(np.mean(found != right))
    return shares


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Times every line that ``--only`` names, prints JSON, and writes it where ``--out`` says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.platform_speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="how often each line is timed")
    parser.add_argument("--calls", type=int, default=20, help="how many calls are queued at a time")
    parser.add_argument("--only", default="", help="only lines whose name contains this")
    parser.add_argument("--out", type=Path, default=None, help="a file for the JSON, beside standard output")
    given = parser.parse_args(arguments)
    lines = [("launch of the smallest program", launch, (jnp.zeros(8),), {})]
    lines += [line for line in code_lines() + recurrent_lines() + order_lines() if given.only in line[0]]
    device = jax.devices()[0]
    results = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "rounds": given.rounds,
        "calls": given.calls,
        "rows": timed(lines, given.rounds, given.calls),
    }
    if given.only in "share of wrong codes":
        results["share of wrong codes"] = wrong_codes()
    print(json.dumps(results, indent=1))
    if given.out is not None:
        write_json(given.out, results)
    return results


if __name__ == "__main__":
    with errors_told():
        main()
