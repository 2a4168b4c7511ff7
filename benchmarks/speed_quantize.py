"""How fast a training step of a quantizer is beside other libraries, and how much memory it takes.

    python -m benchmarks.speed_quantize            # ours beside the bare matrix product; memory
    python -m benchmarks.speed_quantize --peers    # also beside haiku and vector-quantize-pytorch, where installed

A step is what one does in training: codes and values of 32,768 vectors of 64 features, the gradient to them, and the
moving averages of the codebook. The lines are ratios of times, as those of ``benchmarks.speed``.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich
import tyro
from rich.progress import track
from rich.table import Table

from benchmarks.comparison import Comparison, measure
from experiments.files import errors_told, write_json
from jaxlab import quantize

VECTORS, FEATURES, DECAY, COMMITMENT = 32_768, 64, 0.99, 0.25
SIZES = (512, 8192)
#: What the times of ours should be at most, relative to those of the other, at 512 and at 8,192 codes.
AIMS = {
    "matrix product that stores its result": (1.3, 0.65),
    "haiku VectorQuantizerEMA": (1 / 4, 1 / 8),
    "vector-quantize-pytorch VectorQuantize": (1 / 15, 1 / 45),
}
MEMORY_AIM = 64.0


@dataclass(frozen=True)
class Config:
    """Settings of the timings."""

    rounds: int = 9
    """Pairs of timed runs for each line."""
    peers: bool = False
    """Also time other libraries that are installed."""
    peak: int | None = None
    """Print the peak memory of this process at so many codes, and nothing else."""
    out: Path = Path("benchmarks/results")
    """Directory that gets speed_quantize.json."""


def data(num_codes: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and a codebook, of one distribution."""
    generator = np.random.default_rng(0)
    vectors, codebook = (generator.normal(size=(rows, FEATURES)) for rows in (VECTORS, num_codes))
    return vectors.astype(np.float32), codebook.astype(np.float32)


def ours(num_codes: int) -> Callable[[], Any]:
    """The compiled step of ``ema_vector_quantizer`` on its data."""
    x, codebook = map(jnp.asarray, data(num_codes))
    quantizer = quantize.ema_vector_quantizer(num_codes=num_codes, decay=DECAY, commitment_weight=COMMITMENT)
    counts = jnp.full(num_codes, VECTORS / num_codes)
    state = quantize.EmaState(codebook, counts, counts[:, None] * codebook, jnp.ones(()))

    def loss(x, state, key):
        out, state = quantizer.apply(key, (), state, x)
        return jnp.mean(out.values**2) + out.loss, (out.codes, state)

    key = jax.random.key(0)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(x, state, key).compile()
    return lambda: step(x, state, key)


def matrix_product(num_codes: int) -> Callable[[], Any]:
    """All products of vectors and codes, stored: what the distances alone cost a library that has them all."""
    x, codebook = map(jnp.asarray, data(num_codes))
    step = jax.jit(lambda x, codebook: x @ codebook.T).lower(x, codebook).compile()
    return lambda: step(x, codebook)


def haiku(num_codes: int) -> Callable[[], Any]:
    """The compiled step of haiku's quantizer."""
    import haiku as hk  # pyright: ignore[reportMissingImports]

    x = jnp.asarray(data(num_codes)[0])
    quantizer = hk.transform_with_state(
        lambda x: hk.nets.VectorQuantizerEMA(FEATURES, num_codes, COMMITMENT, DECAY)(x, is_training=True)
    )
    _, state = quantizer.init(jax.random.key(0), x)

    def loss(x, state):
        out, state = quantizer.apply({}, state, None, x)
        return jnp.mean(out["quantize"] ** 2) + out["loss"], (out["encoding_indices"], state)

    step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(x, state).compile()
    return lambda: step(x, state)


def vector_quantize_pytorch(num_codes: int) -> Callable[[], Any]:
    """The step of vector-quantize-pytorch's quantizer, with its defaults but for decay and commitment."""
    import torch  # pyright: ignore[reportMissingImports]
    from vector_quantize_pytorch import VectorQuantize  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(os.cpu_count() or 1)
    x = torch.tensor(data(num_codes)[0])[None]
    quantizer: Any = VectorQuantize(FEATURES, codebook_size=num_codes, decay=DECAY, commitment_weight=COMMITMENT)
    quantizer.train()

    def step():
        x.requires_grad_(True)
        x.grad = None
        values, codes, loss = quantizer(x)
        (values.square().mean() + loss.sum()).backward()
        return x.grad, codes

    return step


MAKERS = {
    "matrix product that stores its result": matrix_product,
    "haiku VectorQuantizerEMA": haiku,
    "vector-quantize-pytorch VectorQuantize": vector_quantize_pytorch,
}


def comparisons(peers: bool) -> list[Comparison]:
    """Our step beside each of the others, at both sizes of the codebook."""
    made = []
    for name, make in MAKERS.items():
        if make is not matrix_product and not peers:
            continue
        for num_codes, aim in zip(SIZES, AIMS[name], strict=True):
            try:
                other = make(num_codes)
            except ImportError as error:
                rich.print(f"[yellow]left out: {name}: {error}")
                break
            made.append(Comparison(f"EMA step, {num_codes:,} codes / {name}", ours(num_codes), other, aim))
    return made


def resident_megabytes(field: str) -> float:
    """One of the memory figures that Linux keeps of this process."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in status if line.startswith(field)) / 1024


def peak_megabytes(num_codes: int) -> float:
    """What the first step takes at its peak above what was there, its inputs included, before it."""
    step = ours(num_codes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident_megabytes("VmRSS")
    jax.block_until_ready(step())
    return resident_megabytes("VmHWM") - before


def measured_peak(num_codes: int) -> float | None:
    """The peak in a fresh process; None where there is no such figure."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, "-m", "benchmarks.speed_quantize", "--peak", str(num_codes)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


def main(config: Config) -> dict[str, Any]:
    """Measures every line, prints the tables, writes ``speed_quantize.json``."""
    if config.peak is not None:
        print(peak_megabytes(config.peak))
        return {}
    rows = [measure(comparison, config.rounds) for comparison in track(comparisons(config.peers), "timing")]
    memory = {f"{num_codes:,} codes": measured_peak(num_codes) for num_codes in SIZES}
    table = Table("comparison", "ratio", "quartiles", "aim", "ours, ms", "other, ms")
    for row in rows:
        low, high = row["quartiles"]
        times = (f"{row['milliseconds']:.1f}", f"{row['milliseconds_other']:.1f}")
        table.add_row(row["name"], f"{row['ratio']:.3f}", f"{low:.3f} to {high:.3f}", f"{row['aim']:.3f}", *times)
    rich.print(table)
    for name, megabytes in memory.items():
        rich.print(f"peak memory of a step above its inputs, {name}: {megabytes} MB (aim: {MEMORY_AIM:.0f})")
    results = {
        "rows": rows,
        "peak_megabytes": memory,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    write_json(config.out / "speed_quantize.json", results)
    return results


if __name__ == "__main__":
    with errors_told():
        main(tyro.cli(Config, description=__doc__))
