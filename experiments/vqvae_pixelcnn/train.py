"""Training of the auto-encoder."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.images import Labelled, load_labelled
from experiments.runs import CONFIG, Run, RunError, progress
from experiments.vqvae_pixelcnn.model import Model, TrainState, VqVae, vqvae


@dataclass(frozen=True)
class Data:
    """Which images."""

    name: Literal["fashion_mnist", "digits", "cifar10"] = "fashion_mnist"
    """fashion_mnist is looked for in a directory, the system's package and the net; digits are always there."""
    directory: Path | None = None
    """Where its files lie."""


@dataclass(frozen=True)
class Config:
    """Settings of the training of the auto-encoder."""

    out: Path = Path("runs/vqvae")
    """Directory of the run; the same command goes on where it was killed."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    num_steps: int = 10_000
    batch_size: int = 32
    seed: int = 0
    save_every: int = 500
    log_every: int = 50


TINY = {"data": Data("digits"), "model": Model(num_codes=64, hidden=16, residual_hidden=8, code_dim=8)}


def config_at(directory: Path) -> Config:
    """The settings of the run in a directory."""
    if not (directory / CONFIG).is_file():
        raise RunError(f"no run of an auto-encoder in {directory}: run the verb train first")
    found = json.loads((directory / CONFIG).read_text())
    place = found["data"]["directory"]
    data = Data(found["data"]["name"], None if place is None else Path(place))
    model = Model(**found["model"] | {"levels": tuple(found["model"]["levels"])})
    return Config(**found | {"out": directory, "data": data, "model": model})


def load(data: Data) -> tuple[Labelled, Labelled]:
    """Training and test images."""
    return load_labelled(data.name, "train", data.directory), load_labelled(data.name, "test", data.directory)


# One object for one model: what is compiled of its functions is compiled once in a process.
functions_of = functools.cache(vqvae)


def built(model: Model, images: np.ndarray, axis_name: str | None = None) -> VqVae:
    """The functions of the model for images like these."""
    return functions_of(model, images.shape[1:], float((images / 255.0).var()), axis_name)


@functools.cache
def spread_step(functions: VqVae, mesh: Mesh) -> Callable:
    """A compiled step of training with the batch spread over devices."""
    spread = jax.shard_map(functions.step, mesh=mesh, in_specs=(P(), P(), P("batch")), out_specs=(P(), P()))
    return jax.jit(spread, donate_argnums=1)


def batch_at(seed: int, step: int, images: np.ndarray, size: int) -> np.ndarray:
    """The batch of a step: any process can make it again."""
    return images[np.random.default_rng([seed, step]).integers(len(images), size=size)]


def first_arguments(config: Config, images: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Of ``functions.init``: a key, and images from whose vectors the codebook is made."""
    sample = batch_at(config.seed, 2**31, images, max(config.batch_size, 64))
    return jax.random.key(config.seed), jnp.asarray(sample)


def train(config: Config) -> dict[str, Any]:
    """Trains the auto-encoder, or goes on with it; returns the metrics of the last step."""
    images = load(config.data)[0].images
    devices = jax.devices()
    if config.batch_size % len(devices):
        raise ValueError(f"batch_size must be a multiple of the {len(devices)} devices; got {config.batch_size}")
    mesh = Mesh(np.array(devices), ("batch",))
    train_step = spread_step(built(config.model, images, "batch"), mesh)
    everywhere = NamedSharding(mesh, P())
    key = jax.device_put(jax.random.key(config.seed + 1), everywhere)
    metrics: dict[str, Any] = {}
    with Run(config.out, config, changeable=("out", "num_steps", "save_every")) as run:
        start = jax.jit(built(config.model, images).init)(*first_arguments(config, images))
        step, state = run.restore(jax.device_put(start, everywhere))
        with progress("auto-encoder", config.num_steps, step) as advance:
            while step < config.num_steps:
                batch = batch_at(config.seed, step, images, config.batch_size)
                state, metrics = train_step(jax.random.fold_in(key, step), state, batch)
                step += 1
                if step % config.log_every == 0 or step == config.num_steps:
                    run.log(step, **metrics)
                    advance(step, error=float(metrics["squared_error"]))
                if step % config.save_every == 0 or step == config.num_steps:
                    run.save(step, state)
    return {name: float(value) for name, value in metrics.items()}


def trained(config: Config) -> tuple[VqVae, TrainState]:
    """The auto-encoder of a finished run, its functions compiled."""
    images = load(config.data)[0].images
    functions = built(config.model, images)
    with Run(config.out, config, changeable=("out", "num_steps", "save_every")) as run:
        # Only what it looks like: computing it would have to be compiled.
        step, state = run.restore(jax.eval_shape(functions.init, *first_arguments(config, images)))
    if step < config.num_steps:
        raise ValueError(f"{config.out} has {step} of {config.num_steps} steps: run the verb train first")
    return functions._replace(encode=jax.jit(functions.encode), decode=jax.jit(functions.decode)), state


def codes_of(functions: VqVae, state: TrainState, images: np.ndarray, size: int = 500) -> np.ndarray:
    """The codes of many images as grids [n, height, width], where the codes of one vector lie side by side."""
    parts = [functions.encode(state, images[start : start + size])[1] for start in range(0, len(images), size)]
    codes = np.concatenate([np.asarray(part) for part in parts])
    return codes.reshape(*codes.shape[:2], -1)


def images_of(functions: VqVae, state: TrainState, grids: np.ndarray) -> np.ndarray:
    """The images of such grids."""
    shape = *grids.shape[:2], -1, *functions.code_shape
    return np.asarray(functions.decode(state, jnp.asarray(grids).reshape(shape)))
