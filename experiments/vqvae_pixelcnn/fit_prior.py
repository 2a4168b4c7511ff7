"""Training of a prior over the codes of a trained auto-encoder."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from experiments import devices
from experiments.devices import BATCH
from experiments.files import RunError
from experiments.runs import CONFIG, Run, progress
from experiments.vqvae_pixelcnn.priors import PRIORS, PriorName, log_prob
from experiments.vqvae_pixelcnn.train import codes_of, config_at, load, trained


@dataclass(frozen=True)
class PriorConfig:
    """Settings of the training of a prior."""

    out: Path = Path("runs/prior")
    """Directory of the run; the same command goes on where it was killed."""
    auto_encoder: Path = Path("runs/vqvae")
    """Directory of the auto-encoder's run."""
    prior: PriorName = "pixelcnn"
    num_steps: int = 4_000
    batch_size: int = 32
    learning_rate: float = 1e-3
    """Of Adam, at first; it falls to 0 as a cosine."""
    seed: int = 0
    save_every: int = 500
    log_every: int = 50


def prior_config_at(directory: Path) -> PriorConfig:
    """The settings of the run in a directory."""
    if not (directory / CONFIG).is_file():
        raise RunError(f"no run of a prior in {directory}: run the verb prior first")
    found = json.loads((directory / CONFIG).read_text())
    return PriorConfig(**found | {"out": directory, "auto_encoder": Path(found["auto_encoder"])})


class PriorState(NamedTuple):
    """All that the next step depends on, besides its number and the codes."""

    params: Any
    optimizer_state: Any


def prior_of(config: PriorConfig, num_codes: int, shape: tuple[int, ...]) -> Any:
    """The network for grids of codes [height, width]."""
    return PRIORS[config.prior](num_codes, *shape)


def optimizer_of(config: PriorConfig) -> optax.GradientTransformation:
    """Adam with a cosine schedule and clipped gradients."""
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def initial_state(config: PriorConfig, prior: Any) -> PriorState:
    """Parameters of the network, and the optimizer's state."""
    codes = jnp.zeros((1, prior.height, prior.width), jnp.int32)
    params = prior.init(jax.random.key(config.seed), codes, jnp.zeros(1, jnp.int32))
    return PriorState(params, optimizer_of(config).init(params))


def spread_step(config: PriorConfig, prior: Any, mesh: Mesh) -> Callable:
    """A step of training over a mesh, compiled: (state, codes, labels) to the state after it, and bits of an image."""
    optimizer = optimizer_of(config)

    def step(state, codes, labels):
        def loss_fn(params):
            bits = -log_prob(prior.apply(params, codes, labels), codes) / jnp.log(2)
            return jax.lax.pmean(jnp.mean(bits), BATCH)

        bits, gradient = jax.value_and_grad(loss_fn)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
        return PriorState(optax.apply_updates(state.params, updates), optimizer_state), bits

    spread = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(BATCH), P(BATCH)), out_specs=(P(), P()))
    return jax.jit(spread, donate_argnums=0)


def fit_prior(config: PriorConfig) -> dict[str, Any]:
    """Trains the prior, or goes on with it; returns the bits of an image in the last batch."""
    settings = config_at(config.auto_encoder)
    functions, vqvae_state = trained(settings)
    images, labels = load(settings.data)[0]
    codes = codes_of(functions, vqvae_state, images)
    prior = prior_of(config, functions.num_codes, codes.shape[1:])
    mesh = devices.mesh(config.batch_size)
    train_step = spread_step(config, prior, mesh)
    bits = jnp.nan
    with Run(config.out, config, changeable=("out", "save_every")) as run:
        # Compiled as one: otherwise each operation of the network is by itself.
        start = jax.jit(functools.partial(initial_state, config, prior))()
        number, state = run.restore(devices.everywhere(mesh, start))
        with progress(config.prior, config.num_steps, number) as advance:
            while number < config.num_steps:
                chosen = np.random.default_rng([config.seed, number]).integers(len(codes), size=config.batch_size)
                state, bits = train_step(state, *devices.spread(mesh, (codes[chosen], labels[chosen])))
                number += 1
                if number % config.log_every == 0 or number == config.num_steps:
                    run.log(number, bits=bits)
                    advance(number, bits=float(bits))
                if number % config.save_every == 0 or number == config.num_steps:
                    run.save(number, state)
    return {"bits_of_an_image": float(bits)}


def fitted(config: PriorConfig, num_codes: int, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The network and the parameters of a finished run."""
    prior = prior_of(config, num_codes, shape)
    with Run(config.out, config, changeable=("out", "save_every")) as run:
        number, state = run.restore(jax.eval_shape(functools.partial(initial_state, config, prior)))
    if number < config.num_steps:
        raise ValueError(f"{config.out} has {number} of {config.num_steps} steps: run the verb prior first")
    return prior, state.params
