"""Devices that are not here: a TPU v5e and an NVIDIA H100 as their compilers, which are real, see them.

The compilers come with the extra ``compile`` of pyproject.toml (``make compile``) and need no hardware. Where one is
missing, what is raised here says so, and the tests skip with that reason.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

NUM_DEVICES = 4

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

PLATFORMS = {
    "TPU v5e": {"platform": "tpu", "topology_name": "v5e:2x2"},
    "NVIDIA H100": {
        "platform": "cuda",
        "topology_name": "h100",
        "topology": f"1x1x{NUM_DEVICES}",  # slices x hosts x devices
        "target_config": H100,
    },
}


class CompilerMissing(Exception):  # noqa: N818 (it is a state of this machine, and no error)
    """There is no compiler for the platform on this machine; the message says why."""


@functools.cache
def mesh(name: str) -> Mesh:
    """The four devices of one of ``PLATFORMS``; raises CompilerMissing, also if it fails on the smallest program."""
    # Otherwise libtpu asks a metadata server which TPU this machine is part of, for minutes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # It ends the process at flags of XLA that it does not know (conftest.py), which have been read by now.
    jax.devices()
    os.environ.pop("XLA_FLAGS", None)
    # It locks a file, for there is one chip to a process; of the compiler alone there may be several.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
    try:
        devices = topologies.get_topology_desc(**PLATFORMS[name]).devices
        found = Mesh(np.array(devices), ("batch",))
        compile_on(found, lambda x: x + 1, np.zeros(NUM_DEVICES, np.float32))
    except Exception as error:  # of as many types as there are ways to lack a compiler, its plugin, or ptxas
        raise CompilerMissing(f"no compiler for {name}: {type(error).__name__}: {str(error)[:300]}") from error
    return found


def compile_on(mesh: Mesh, function: Callable, *arguments: Any) -> jax.stages.Compiled:
    """``function`` compiled for arguments of these shapes, each of which is spread over the mesh by its first axis."""
    spread = NamedSharding(mesh, PartitionSpec("batch"))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=spread), arguments)
    return jax.jit(function).lower(*shapes).compile()


def costs(compiled: jax.stages.Compiled) -> dict[str, float | None]:
    """For one device: flops, bytes that all operations read and write, and bytes allocated for intermediate values."""
    analysis = compiled.cost_analysis()
    if (
        analysis is None
    ):  # the GPU compiler has no analysis of its own without a GPU; XLA's general one reads its program
        from jax._src.lib import xla_client

        module = compiled.runtime_executable().hlo_modules()[0]
        analysis = xla_client._xla.hlo_module_cost_analysis(jax.devices("cpu")[0].client, module)
    return {
        "flops": analysis.get("flops", 0.0),
        "bytes accessed": analysis.get("bytes accessed", 0.0),
        "temporary bytes": compiled.memory_analysis().temp_size_in_bytes,
    }
