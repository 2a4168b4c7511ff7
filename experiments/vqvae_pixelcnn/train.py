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

from experiments import devices
from experiments.devices import BATCH, MODEL
from experiments.files import RunError
from experiments.images import Labelled, load_labelled
from experiments.runs import CONFIG, Run, progress
from experiments.vqvae_pixelcnn.model import NOISY, Model, TrainState, VqVae, vqvae


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
    model_devices: int = 1
    """Devices among which the codebook is spread; the others share the batch."""


#: What may differ when a run is started again.
CHANGEABLE = ("out", "num_steps", "save_every", "model_devices")

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


def built(model: Model, images: np.ndarray, axis_name: str | None = None, code_axis_name: str | None = None) -> VqVae:
    """The functions of the model for images like these."""
    return functions_of(model, images.shape[1:], float((images / 255.0).var()), axis_name, code_axis_name)


def specs_of(state: Any, mesh: Mesh) -> Any:
    """How the state lies on the mesh: parts of the codebook on the axis ``model``, everything else everywhere."""

    def spec(path: Any, leaf: Any) -> P:
        of_codebook = "quantizer" in jax.tree_util.keystr(path) and leaf.ndim
        return P(MODEL) if of_codebook and mesh.shape[MODEL] > 1 else P()

    return jax.tree_util.tree_map_with_path(spec, state)


def spread_step(model: Model, images: np.ndarray, mesh: Mesh, state: Any) -> Callable:
    """A step of training over a mesh, compiled: (key, state, images) to the state after it, and metrics.

    Args:
      model: settings.
      images: of the training.
      mesh: of devices.
      state: one like the states to come, on the mesh or not.
    """
    specs = specs_of(state, mesh)
    if model.quantizer in NOISY:
        step = built(model, images).step
    else:
        names = BATCH, MODEL if mesh.shape[MODEL] > 1 else None
        step = jax.shard_map(
            built(model, images, *names).step,
            mesh=mesh,
            in_specs=(P(), specs, P(BATCH)),
            out_specs=(specs, P()),
        )
    # The same objects as before: a state that comes out goes in again, without being compiled for once more.
    lies = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return jax.jit(step, donate_argnums=1, out_shardings=(lies, NamedSharding(mesh, P())))


def on_mesh(state: Any, mesh: Mesh) -> Any:
    """The state as its step wants it."""
    return jax.tree.map(lambda leaf, spec: devices.place(leaf, NamedSharding(mesh, spec)), state, specs_of(state, mesh))


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
    mesh = devices.mesh(config.batch_size, config.model_devices)
    key = devices.everywhere(mesh, jax.random.key(config.seed + 1))
    metrics: dict[str, Any] = {}
    with Run(config.out, config, changeable=CHANGEABLE) as run:
        start = jax.jit(built(config.model, images).init)(*first_arguments(config, images))
        train_step = spread_step(config.model, images, mesh, start)
        step, state = run.restore(on_mesh(start, mesh))
        with progress("auto-encoder", config.num_steps, step) as advance:
            while step < config.num_steps:
                batch = devices.spread(mesh, batch_at(config.seed, step, images, config.batch_size))
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
    with Run(config.out, config, changeable=CHANGEABLE) as run:
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
