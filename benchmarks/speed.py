"""How fast our functions are beside the same arithmetic written by hand, or beside another library.

    python -m benchmarks.speed            # ours beside hand-written JAX
    python -m benchmarks.speed --peers    # also beside distrax and numpyro, where they are installed

Each line is a ratio: the two functions are compiled and timed in turn, A B A B ...,
in one process; the ratio is the median over the rounds, with the quartiles beside it. The machine's own speed cancels.
"""

import json
import os
import platform
import subprocess
import sys
import time
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

from benchmarks import speed_smooth
from jaxlab import estimators
from jaxlab.distributions import Bernoulli, Categorical, Normal

BATCH, LATENTS, HIDDEN, PIXELS = 100, 200, 200, 784


@dataclass(frozen=True)
class Config:
    """Settings of the timings."""

    rounds: int = 40
    """Pairs of timed runs for each line."""
    peers: bool = False
    """Also time other libraries that are installed."""
    out: Path = Path("benchmarks/results")
    """Directory that gets speed.json."""


@dataclass(frozen=True)
class Comparison:
    """Two functions of no arguments that compute the same, compiled; and what their ratio should be at most."""

    name: str
    ours: Callable[[], Any]
    other: Callable[[], Any]
    aim: float


def initial_decoder(key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Weights of the nonlinear decoder 200-200-200-784 of the published protocol."""
    sizes = [LATENTS, HIDDEN, HIDDEN, PIXELS]
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (rows, columns)) / rows**0.5, jnp.zeros(columns))
        for k, rows, columns in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def decode(decoder: list[tuple[jax.Array, jax.Array]], latent: jax.Array) -> jax.Array:
    """Logits of the pixels, for one latent vector or for a batch of them."""
    hidden = latent
    for weights, biases in decoder[:-1]:
        hidden = jax.nn.leaky_relu(hidden @ weights + biases, 0.3)
    weights, biases = decoder[-1]
    return hidden @ weights + biases


def cost(decoder: list[tuple[jax.Array, jax.Array]], latent: jax.Array, image: jax.Array) -> jax.Array:
    """Negative log-likelihood in nats of an image's bits, summed over the last axis."""
    logits = decode(decoder, latent)
    return jnp.sum(jax.nn.softplus(logits) - image * logits, -1)


def data(seed: int = 0) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
    """A key, a decoder, posterior logits [b, latents] and images [b, pixels]."""
    key, decoder_key, logits_key, images_key = jax.random.split(jax.random.key(seed), 4)
    logits = jax.random.normal(logits_key, (BATCH, LATENTS))
    images = jax.random.bernoulli(images_key, 0.3, (BATCH, PIXELS)).astype(jnp.float32)
    return key, initial_decoder(decoder_key), logits, images


def ours_by_vmap(estimate: Callable, make: Callable, **options: Any) -> Callable:
    """The value and gradient of an estimator of ours, a minibatch by ``jax.vmap``."""

    def loss(parameters, key, images):
        decoder, logits = parameters
        keys = jax.random.split(key, BATCH)

        def one(key, logits, image):
            return estimate(key, make(logits), lambda latent: cost(decoder, latent, image), **options)

        return jnp.mean(jax.vmap(one)(keys, logits, images))

    return jax.jit(jax.value_and_grad(loss))


def score_by_hand(num_samples: int, leave_one_out: bool) -> Callable:
    """REINFORCE or leave-one-out on a batch, as one writes it in a training script."""

    def loss(parameters, key, images):
        decoder, logits = parameters
        shape = (num_samples, *logits.shape)
        bits = (jax.random.uniform(key, shape) < jax.nn.sigmoid(logits)).astype(jnp.float32)
        log_prob = jnp.sum(bits * logits - jax.nn.softplus(logits), -1)
        costs = cost(decoder, bits, images)
        fixed = jax.lax.stop_gradient(costs)
        if leave_one_out:
            fixed = fixed - (jnp.sum(fixed, 0) - fixed) / (num_samples - 1)
        # The value is the cost; the score term has none.
        return jnp.mean(costs + fixed * (log_prob - jax.lax.stop_gradient(log_prob)))

    return jax.jit(jax.value_and_grad(loss))


def reparameterized_by_hand() -> Callable:
    """The pathwise gradient of a Gaussian on a batch, as one writes it in a training script."""

    def loss(parameters, key, images):
        decoder, logits = parameters
        latent = logits + 0.5 * jax.random.normal(key, logits.shape)
        return jnp.mean(cost(decoder, latent, images))

    return jax.jit(jax.value_and_grad(loss))


def gumbel_softmax_by_hand(temperature: float) -> Callable:
    """The binary Concrete relaxation on a batch, as one writes it in a training script."""

    def loss(parameters, key, images):
        decoder, logits = parameters
        noise = jax.random.logistic(key, logits.shape)
        return jnp.mean(cost(decoder, jax.nn.sigmoid((logits + noise) / temperature), images))

    return jax.jit(jax.value_and_grad(loss))


def comparisons() -> list[Comparison]:
    """Ours beside hand-written JAX."""
    key, decoder, logits, images = data()
    arguments = ((decoder, logits), key, images)

    def compare(name: str, ours: Callable, other: Callable, aim: float) -> Comparison:
        return Comparison(name, lambda: ours(*arguments), lambda: other(*arguments), aim)

    one_sample = score_by_hand(1, leave_one_out=False)
    reinforce = ours_by_vmap(estimators.reinforce, Bernoulli)
    pairs = ours_by_vmap(estimators.leave_one_out, Bernoulli, num_samples=2)
    pathwise = ours_by_vmap(estimators.reparameterized, lambda loc: Normal(loc, jnp.full_like(loc, 0.5)))
    relaxed = ours_by_vmap(estimators.gumbel_softmax, Bernoulli, temperature=0.5)
    return [
        compare("reinforce / by hand", reinforce, one_sample, 1.1),
        compare("reparameterized / by hand", pathwise, reparameterized_by_hand(), 1.1),
        compare("leave_one_out, 2 samples / by hand", pairs, score_by_hand(2, leave_one_out=True), 1.1),
        compare("leave_one_out, 2 samples / reinforce by hand", pairs, one_sample, 2.2),
        compare("gumbel_softmax / by hand", relaxed, gumbel_softmax_by_hand(0.5), 1.1),
    ]


def distrax_comparison() -> Comparison:
    """Straight-through gradients of one-hot draws: ours beside distrax's wrapper."""
    import distrax

    key = jax.random.key(0)
    logits = jax.random.normal(jax.random.key(1), (BATCH, 20, 10))
    weights = jax.random.normal(jax.random.key(2), (20, 10))
    straight_through_type: Any = distrax.straight_through_wrapper(distrax.OneHotCategorical)

    def theirs(logits, key):
        draws = straight_through_type(logits=logits).sample(seed=key)
        return jnp.mean(jnp.sum(draws * weights, (-1, -2)) ** 2)

    def ours(logits, key):
        def one(key, logits):
            category = Categorical(logits)
            return estimators.straight_through_mean(key, category, lambda draw: jnp.sum(draw * weights) ** 2)

        return jnp.mean(jax.vmap(one)(jax.random.split(key, BATCH), logits))

    ours_compiled, theirs_compiled = jax.jit(jax.grad(ours)), jax.jit(jax.grad(theirs))
    name = "straight_through_mean / distrax straight_through_wrapper"
    return Comparison(name, lambda: ours_compiled(logits, key), lambda: theirs_compiled(logits, key), 1.0)


def numpyro_comparison() -> Comparison:
    """The gradient of a Bernoulli VAE's bound: ours beside numpyro's TraceGraph_ELBO."""
    import numpyro
    from numpyro import distributions
    from numpyro.infer import TraceGraph_ELBO

    key, decoder, logits, images = data()

    def model(parameters):
        with numpyro.plate("examples", BATCH):  # each example is credited with its own cost, as ours is
            prior = distributions.Bernoulli(logits=jnp.zeros((BATCH, LATENTS)))
            latent: Any = numpyro.sample("latent", prior.to_event(1))
            pixels = decode(parameters[0], latent.astype(jnp.float32))
            numpyro.sample("image", distributions.Bernoulli(logits=pixels).to_event(1), obs=images)

    def guide(parameters):
        with numpyro.plate("examples", BATCH):
            numpyro.sample("latent", distributions.Bernoulli(logits=parameters[1]).to_event(1))

    def theirs(parameters, key):
        bound = TraceGraph_ELBO()
        return bound.loss(key, {}, lambda: model(parameters), lambda: guide(parameters)) / BATCH

    def ours(parameters, key):
        decoder, logits = parameters

        def one(key, logits, image):
            bits = Bernoulli(logits)

            def negative_bound(latent):
                log_prior = -LATENTS * jnp.log(2.0)
                return cost(decoder, latent, image) + bits.log_prob(latent) - log_prior

            return estimators.reinforce(key, bits, negative_bound)

        return jnp.mean(jax.vmap(one)(jax.random.split(key, BATCH), logits, images))

    parameters = (decoder, logits)
    ours_compiled, theirs_compiled = jax.jit(jax.value_and_grad(ours)), jax.jit(jax.value_and_grad(theirs))
    name = "reinforce / numpyro TraceGraph_ELBO"
    return Comparison(name, lambda: ours_compiled(parameters, key), lambda: theirs_compiled(parameters, key), 1.1)


def peer_comparisons() -> list[Comparison]:
    """Ours beside other libraries, as far as they are installed."""
    made = []
    for make in (distrax_comparison, numpyro_comparison):
        try:
            made.append(make())
        except ImportError as error:
            rich.print(f"[yellow]left out: {make.__name__}: {error}")
    return made


def seconds(function: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call, its results included."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def measure(comparison: Comparison, rounds: int) -> dict[str, Any]:
    """Times the two in turn; the ratios of neighbours, so that a slow moment hits both."""
    for function in (comparison.ours, comparison.other) * 3:
        seconds(function)
    pairs = []
    for i in range(rounds):
        # Whoever comes second finds warm caches: take turns.
        first, second = (comparison.ours, comparison.other) if i % 2 == 0 else (comparison.other, comparison.ours)
        times = (seconds(first), seconds(second))
        pairs.append(times if i % 2 == 0 else times[::-1])
    ours, other = np.array(pairs).T
    quartiles = np.quantile(ours / other, [0.25, 0.5, 0.75])
    return {
        "name": comparison.name,
        "ratio": float(quartiles[1]),
        "quartiles": [float(quartiles[0]), float(quartiles[2])],
        "aim": comparison.aim,
        "milliseconds": float(np.median(ours) * 1e3),
        "milliseconds_other": float(np.median(other) * 1e3),
    }


def import_milliseconds(rounds: int = 7) -> dict[str, float]:
    """What ``import jaxlab``, and all of its modules, cost over ``import jax``: medians over fresh processes."""
    program = (
        "import time, jax, jax.numpy; a = time.perf_counter(); import jaxlab; b = time.perf_counter();"
        "[getattr(jaxlab, name) for name in jaxlab.__all__]; c = time.perf_counter(); print(b - a, c - a)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(rounds)
    ]
    package, modules = np.median(np.array(runs, float), 0) * 1e3
    return {"import jaxlab": float(package), "import jaxlab and all its modules": float(modules)}


def main(config: Config) -> dict[str, Any]:
    """Measures every line, prints the table, writes ``speed.json``."""
    chosen = comparisons() + (peer_comparisons() if config.peers else [])
    chosen += [Comparison(*line) for line in speed_smooth.lines()]
    chosen += [Comparison(*line) for line in (speed_smooth.peer_lines() if config.peers else [])]
    rows = [measure(comparison, config.rounds) for comparison in track(chosen, description="timing")]
    imports = import_milliseconds()
    table = Table("comparison", "ratio", "quartiles", "aim", "ours, ms", "other, ms")
    for row in rows:
        low, high = row["quartiles"]
        times = (f"{row['milliseconds']:.2f}", f"{row['milliseconds_other']:.2f}")
        table.add_row(row["name"], f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['aim']:.1f}", *times)
    rich.print(table)
    for name, milliseconds in imports.items():
        rich.print(f"{name}: {milliseconds:.1f} ms over import jax")
    results = {
        "rows": rows,
        "import_milliseconds": imports,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "speed.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
