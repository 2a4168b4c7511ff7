"""The strictest JAX there is: what passes here does not depend on promotion, reused keys, or silence."""

import contextlib
import functools
import gc
import os
import tempfile
from pathlib import Path

from compiler import QUICK, flags

# Another platform is for whoever asks for it.
if os.environ.setdefault("JAX_PLATFORMS", "cpu") == "cpu":
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags(QUICK)}"

# Where each operation of a program was written takes time to note, and nothing here reads it.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
# What takes longer to compile is kept while the tests run, for the processes that they start: a training that is killed
# and goes on compiles its step once.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": compiled.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
# These processes hardly compile a program twice.
jax.config.update("jax_enable_compilation_cache", False)
# JAX writes each program in a new context, at the price of time and memory, and has no setting for that. One serves all
# here, as long as JAX makes contexts at this place: it is no part of what JAX promises.
with contextlib.suppress(ImportError, AttributeError):
    from jax._src.interpreters import mlir

    mlir.make_ir_context = functools.cache(mlir.make_ir_context)
if os.environ["JAX_PLATFORMS"] != "cpu":
    # At what precision a user's weights are multiplied is the user's choice (recurrent.scan_affine). By default a TPU
    # rounds them to bfloat16, and an H100 may round them to TF32 in the products of a batch and not in those of one
    # example: the laws that compare these are about float32.
    jax.config.update("jax_default_matmul_precision", "highest")
# Doctests compare the last line of a traceback: nothing may come after it.
jax.config.update("jax_traceback_filtering", "off")

# Read by pyright alone: half of its calls are errors.
collect_ignore = ["typing_claims.py"]
# Programs that recorded what other libraries, which need not be here, give.
collect_ignore_glob = ["golden/*"]


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(items):
    """With several processes, one has all of a file, whose tests share programs, and of a row all laws.

    One has all of a platform: its compiler admits one at a time, and its record is one. Rows come last: there are many
    of them, and short ones, so that no process waits long for another at the end.
    """
    from cases import Case  # its arrays are JAX's: not before the settings above

    rows, others = [], []
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        platform, case = params.get("platform"), params.get("case")
        if isinstance(platform, str):
            group, place = platform, others
        elif isinstance(case, Case):
            group, place = case.label, rows
        else:
            group, place = item.nodeid.split("::")[0], others
        item.add_marker(pytest.mark.xdist_group(group))
        place.append(item)
    items[:] = others + rows


def pytest_collection_finish():
    """Garbage is collected seldom, and not looked for in what was imported: that takes long."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


# Compiled programs are kept for as long as a process lives: thousands of tests would fill the memory with them.
GROWTH = 2**31
STATUS = Path("/proc/self/statm")
floor = 0


def resident_bytes():
    return int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if STATUS.exists() else 0


def pytest_runtest_teardown():
    global floor
    if resident_bytes() > floor + GROWTH:
        jax.clear_caches()
        gc.collect()
        floor = resident_bytes()
