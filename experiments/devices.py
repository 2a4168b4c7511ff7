"""Where arrays lie: on one device, on all devices of a process, or on those of all processes of a cluster.

A step of training is one program for a mesh of devices with two axes: ``batch``, over which the examples are spread,
and ``model``, over which large matrices are (of size 1 unless an experiment is told otherwise). The same program runs
on one device; the sums over examples are taken in another order then, so that results agree to rounding, not to the
bit.

    config = devices.command_line(Config, __doc__)  # joins other processes if --distributed is among the arguments
    mesh = devices.mesh(batch_size=32)
    state = devices.everywhere(mesh, state)
    batch = devices.spread(mesh, batch)          # each process makes the whole batch and keeps the part of its devices
    state, loss = train_step(state, batch)

Of several processes the first one writes files (:mod:`experiments.runs`) and prints; checkpoints are written by all.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

BATCH, MODEL = "batch", "model"

#: Below the description of every command.
HELP = """Several processes: add --distributed to the same command in each of them. Slurm, TPU pods, Kubernetes and
Open MPI say by themselves who is who (Slurm and Open MPI want one process for each GPU); elsewhere add
--coordinator HOST:PORT (of the first process, a port that is free there), --num-processes N and --process I (from 0
on). All of them need the same directories."""


def command_line(config: Any, description: str | None) -> Any:
    """The settings that the command line gives, by tyro; with --distributed, the process has joined the others."""
    import tyro

    arguments = start(sys.argv[1:])
    text = f"{description or ''}\n{HELP}"
    # The name of the module that runs, and not the path of its file.
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    prog = f"python -m {spec.name.removesuffix('.__main__')}" if spec is not None else None
    if isinstance(config, dict):
        return tyro.extras.subcommand_cli_from_dict(config, description=text, args=arguments, prog=prog)
    return tyro.cli(config, description=text, args=arguments, prog=prog)


def start(arguments: Sequence[str]) -> list[str]:
    """Joins the other processes, if the command line says so; to be called before JAX is used.

    Args:
      arguments: of the command line, such as ``sys.argv[1:]``.

    Returns:
      The arguments without those that are meant for this function.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, description=HELP)
    parser.add_argument("--distributed", action="store_true")
    parser.add_argument("--coordinator")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--process", type=int)
    found, rest = parser.parse_known_args(arguments)
    given = [found.coordinator, found.num_processes, found.process]
    if not found.distributed:
        if given != [None] * 3:
            parser.error("--coordinator, --num-processes and --process are for --distributed")
        return rest
    if None in given and given != [None] * 3:
        parser.error("--coordinator, --num-processes and --process come together, or none of them")
    # Between CPUs; other platforms have ways of their own and ignore it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(*given)
    except ValueError as error:
        sys.exit(f"--distributed: this is no cluster that JAX knows ({error})\n{HELP}")
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (it stays open)
        rich.reconfigure(file=sys.stdout)
    return rest


def available() -> Sequence[Any]:
    """All devices of all processes."""
    return jax.devices()


def mesh(batch_size: int, num_model: int = 1) -> Mesh:
    """The devices as a grid [batch, model].

    In one process those devices are left out among which the batch cannot be shared equally, with a line that says so.

    Args:
      batch_size: examples of a step.
      num_model: devices that share each of the large matrices.

    Returns:
      A mesh with the axes ``batch`` and ``model``.

    Raises:
      ValueError: if ``num_model`` does not divide the number of devices; for several processes, if the devices of the
        batch axis do not divide ``batch_size``.
    """
    found = np.array(available())
    if num_model < 1 or len(found) % num_model:
        raise ValueError(f"mesh: num_model must divide the number of devices, {len(found)}; got {num_model}")
    num_batch = len(found) // num_model
    shared = math.gcd(num_batch, batch_size)
    if shared < num_batch:
        what = f"batch_size should be a multiple of {num_batch}, the devices that share it; got {batch_size}"
        if jax.process_count() > 1:
            raise ValueError(f"mesh: {what}")
        rich.print(f"[bold yellow]{what}: {shared * num_model} of {len(found)} devices are used")
    return Mesh(found[: shared * num_model].reshape(shared, num_model), (BATCH, MODEL))


def everywhere(mesh: Mesh, tree: Any) -> Any:
    """The arrays on every device; those that are spread over the mesh already stay where they are."""
    sharding = NamedSharding(mesh, P())

    def placed(leaf: Any) -> jax.Array:
        own = getattr(leaf, "sharding", None)
        there = isinstance(own, NamedSharding) and own.mesh == mesh
        return leaf if there else place(leaf, sharding)

    return jax.tree.map(placed, tree)


def spread(mesh: Mesh, tree: Any, axis: int = 0) -> Any:
    """The arrays with this axis, of examples, spread over the devices."""
    sharding = NamedSharding(mesh, P(*[None] * axis, BATCH))
    return jax.tree.map(lambda leaf: place(leaf, sharding), tree)


def place(value: Any, sharding: NamedSharding) -> jax.Array:
    """An array that every process has in full, as one array of all processes."""
    if jax.process_count() == 1:
        return jax.device_put(value, sharding)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(place(jax.random.key_data(value), sharding), impl=jax.random.key_impl(value))
    # Not device_put: it would have all processes compare what they have, in every step.
    whole = np.asarray(value)
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def alone(tree: Any) -> Any:
    """The whole arrays on the first device of this process, for what is not spread."""
    return jax.device_put(on_host(tree), jax.local_devices()[0])


def on_host(tree: Any) -> Any:
    """The whole arrays, in every process."""

    def whole(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated:
            leaf = jax.device_put(leaf, NamedSharding(leaf.sharding.mesh, P()))  # pyright: ignore
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)
