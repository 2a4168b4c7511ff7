"""Devices that are not here: TPUs and NVIDIA GPUs as their compilers, which are real, see them.

The compilers come with the extra ``compile`` of pyproject.toml (``make compile``) and need no hardware. Where one is
missing, what is raised here says so: tests skip with that reason, tables leave the platform out.
"""

import functools
import hashlib
import importlib.metadata
import os
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# A GpuTargetConfigProto in text form: what the compiler would otherwise ask the driver.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  threads_per_block_limit: 1024  threads_per_warp: 32  shared_memory_per_block: 49152  shared_memory_per_core: 233472
  threads_per_core_limit: 2048  core_count: 132  fpus_per_core: 128  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535  block_dim_limit_z: 65535  memory_bandwidth: 3352320000000  l2_cache_size: 52428800
  clock_rate_ghz: 1.98  device_memory_size: 84942979072  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

#: After a change here, or above, all is to be compiled again: no fingerprint knows of it.
PLATFORMS = {
    "TPU v5e": {"platform": "tpu", "topology_name": "v5e:2x2"},
    "TPU v6e": {"platform": "tpu", "topology_name": "v6e:2x2"},
    "NVIDIA H100": {
        "platform": "cuda",
        "topology_name": "h100",
        "topology": "1x1x8",  # slices x hosts x devices
        "target_config": H100,
    },
}


class CompilerMissing(Exception):  # noqa: N818 (it is a state of this machine, and no error)
    """There is no compiler for the platform on this machine; the message says why."""


@functools.cache
def devices(name: str) -> list[Any]:
    """All devices of one of ``PLATFORMS``, or of this machine's CPU; raises CompilerMissing."""
    if name == "CPU":
        return jax.devices("cpu")
    # Otherwise libtpu asks a metadata server which TPU this machine is part of, for minutes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # It ends the process at flags of XLA that it does not know (tests/conftest.py), which have been read by now.
    jax.devices()
    os.environ.pop("XLA_FLAGS", None)
    # It locks a file, for there is one chip to a process; of the compiler alone there may be several.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
    try:
        found = list(topologies.get_topology_desc(**PLATFORMS[name]).devices)
        # What is compiled for a device that is not here can be kept on disk, and not be read again.
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()
        lowered_on(Mesh(np.array(found[:1]), ("batch",)), lambda x: x + 1, np.zeros(1, np.float32)).compile()
    except Exception as error:  # of as many types as there are ways to lack a compiler, its plugin, or ptxas
        raise CompilerMissing(f"no compiler for {name}: {type(error).__name__}: {str(error)[:300]}") from error
    return found


def version(name: str) -> str:
    """What compiles for one of ``PLATFORMS`` or the CPU: that for TPU has a version of its own, others have jax's."""
    if PLATFORMS.get(name, {}).get("platform") != "tpu":
        return f"jax {jax.__version__}"
    try:
        return f"libtpu {importlib.metadata.version('libtpu')}"
    except importlib.metadata.PackageNotFoundError as error:
        raise CompilerMissing(f"no compiler for {name}: {error}") from error


def fingerprint(name: str, lowered: jax.stages.Lowered) -> str:
    """What tells a traced program and its compiler from others: the same is compiled alike."""
    # What is cut by a rule of its own names the rule by where it lies in memory.
    text = re.sub(r'backend_config = "\d+"', "", lowered.as_text())
    return hashlib.sha256(f"{version(name).removeprefix('jax ')} {text}".encode()).hexdigest()


def mesh(name: str, num_devices: int = 4) -> Mesh:
    """So many devices of a platform along one axis, ``batch``; raises CompilerMissing."""
    return Mesh(np.array(devices(name)[:num_devices]), ("batch",))


def placed(tree: Any, mesh: Mesh, *axes: str | None) -> Any:
    """The shapes of a pytree of arrays, as they lie on the mesh: whole on every device, or spread along axes."""
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def lowered_on(mesh: Mesh, function: Callable, *arguments: Any) -> jax.stages.Lowered:
    """``function`` traced for arguments of these shapes, each of which is spread over the mesh by its first axis."""
    return jax.jit(function).lower(*placed(arguments, mesh, "batch"))


def temporary_bytes(compiled: jax.stages.Compiled) -> int:
    """What one device allocates for intermediate values, beside arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes  # pyright: ignore[reportOptionalMemberAccess]
