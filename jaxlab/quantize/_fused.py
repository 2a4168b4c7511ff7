"""The search for the nearest code in one kernel, for NVIDIA GPUs: no score leaves the registers in which it is made.

Written in Pallas. What XLA makes of ``search_blocks`` stores the scores of a chunk and reads them several times, and
its products of float32 do without the matrix units. Here a float32 is the exact sum of three numbers of bfloat16, and a
product of two of them is six products of such parts, which the matrix units multiply exactly and add in float32; the
three that are left out are together about a unit in the last place of float32, at most. How fast that is beside the
other way, and how many codes are not those of float64: ``python -m benchmarks.platform_speed``.
"""

import ctypes
import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxlab._chunks import by_chunks

# So many vectors are one program's; it takes so many codes at a time, and so many features, which are a slice. Found by
# trying on an H100. More vectors where there are many, of one slice, and no GPU so new that they do not fit.
VECTORS, MORE_VECTORS, MANY, TOO_NEW = 64, 128, 16_384, 10.0
CODES, CODES_OF_ONE_PART, FEATURES = 64, 128, 64
WARPS = 4
STAGES = 2  # of what is loaded ahead: more do not fit on every GPU
# Pairs of parts, the smallest products first: those of one size are added before the next.
PAIRS = {1: ((0, 0),), 3: ((2, 0), (1, 1), (0, 2), (1, 0), (0, 1), (0, 0))}
# So many numbers of vectors at a time, whose parts take 96 MiB: that fills a GPU.
AT_ONCE = 2**24
# Places in the codebook are counted in 32 bits; so many rows at most fill its last tile.
MAXIMAL_SIZE, FILLED = 2**31 - 1, 128
MINIMAL_CAPABILITY = 8.0  # the first with matrix units for bfloat16

Found = tuple[Int[Array, "*n"], Float[Array, "*n"]]


def parts_of(x: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], ...]:
    """Numbers of 16 bits whose exact sum is ``x``."""
    if x.dtype != jnp.float32:
        return (x,)
    parts, rest = [], x
    for _ in range(3):
        # Rounded so: a conversion to bfloat16 and back may be left out by the compiler.
        part = lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7)
        parts.append(part.astype(jnp.bfloat16))
        rest = rest - part
    return tuple(parts)


def padded(x: Array, axis: int, multiple: int, value: float = 0.0) -> Array:
    """With ``value`` at the end of an axis, up to the next multiple."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, widths, constant_values=value)


def nearest_code_kernel(*refs: Any, num_parts: int, num_codes: int, num_features: int) -> None:
    """Of one block of vectors: the first code with the least score, and that score.

    ``refs``: parts of the vectors, parts of all codes, offsets of all codes; then codes and scores, to be written.
    """
    from jax.experimental import pallas as pl  # at the first call: a tenth of a second

    vectors, codes, (offsets, found, minima) = refs[:num_parts], refs[num_parts : 2 * num_parts], refs[-3:]
    num_vectors, depth = vectors[0].shape
    place, num_slices = lax.broadcasted_iota(jnp.int32, (num_vectors, num_codes), 1), depth // num_features

    def products(rows, columns, total):
        x = [part[:, columns] for part in vectors]
        e = [part[rows, columns] for part in codes]
        for i, j in PAIRS[num_parts]:
            total = total + lax.dot_general(
                x[i],
                e[j],
                (((1,), (1,)), ((), ())),
                precision=lax.Precision.HIGHEST,
                preferred_element_type=jnp.float32,
            )
        return total

    def keep_better(number, best):
        code, minimum = best
        rows = pl.ds(number * num_codes, num_codes)
        total = jnp.zeros((num_vectors, num_codes), jnp.float32)
        if num_slices == 1:
            total = products(rows, slice(None), total)
        else:
            columns = functools.partial(pl.ds, size=num_features)
            total = lax.fori_loop(0, num_slices, lambda s, sums: products(rows, columns(s * num_features), sums), total)
        scores = offsets[rows][None, :] - total
        new = jnp.min(scores, 1)
        first = jnp.min(jnp.where(scores == new[:, None], place, num_codes), 1)
        better = new < minimum  # and never if it is NaN
        return jnp.where(better, number * num_codes + first, code), jnp.where(better, new, minimum)

    nothing = jnp.zeros(num_vectors, jnp.int32), jnp.full(num_vectors, jnp.inf, jnp.float32)
    found[...], minima[...] = lax.fori_loop(0, offsets.shape[0] // num_codes, keep_better, nothing)


def search_blocks_of(
    x: Float[Array, "b n d"], codebook: Float[Array, "b k d"], offsets: Float[Array, "b k"], *, interpret: bool
) -> Found:
    """The kernel on one device, for each of several codebooks and its vectors."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    # Newer JAX announces, where the program is lowered, that this way of compiling a kernel will go. It is no concern
    # of a user's: then there is no kernel (is_fusible).
    warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
    num_batches, num_vectors, num_features = x.shape
    features, depth = min(FEATURES, depth_of(num_features)), depth_of(num_features)
    x, codebook = (padded(rows, 2, depth) for rows in (x, codebook))
    is_wide = num_vectors >= MANY and depth == features and max(capabilities(), default=TOO_NEW) < TOO_NEW
    at_once = MORE_VECTORS if is_wide else VECTORS
    vectors = parts_of(padded(x, 1, at_once))
    num_codes = CODES_OF_ONE_PART if len(vectors) == 1 else CODES
    codes, offsets = parts_of(padded(codebook, 1, num_codes)), padded(offsets, 1, num_codes, jnp.inf)
    blocks, total = vectors[0].shape[1] // at_once, offsets.shape[1]

    def results(vectors, codes, offsets):
        """Of the right shapes; in a map over devices they vary as the arguments do."""
        minima = (vectors[:, :, 0] * codes[:, :1, 0]).astype(jnp.float32) + offsets[:, :1]
        return minima.astype(jnp.int32), minima

    def block(*sizes: int, moving: bool) -> pl.BlockSpec:
        return pl.BlockSpec((None, *sizes), lambda b, i: (b, i if moving else 0, *(0,) * (len(sizes) - 1)))

    found, minima = pl.pallas_call(
        functools.partial(nearest_code_kernel, num_parts=len(vectors), num_codes=num_codes, num_features=features),
        out_shape=jax.eval_shape(results, vectors[0], codes[0], offsets),
        grid=(num_batches, blocks),
        in_specs=[
            *[block(at_once, depth, moving=True)] * len(vectors),
            *[block(total, depth, moving=False)] * len(vectors),
            block(total, moving=False),
        ],
        out_specs=[block(at_once, moving=True)] * 2,
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=STAGES),
        interpret=interpret,
    )(*vectors, *codes, offsets)
    return found[:, :num_vectors], minima[:, :num_vectors]


def depth_of(num_features: int) -> int:
    """So many features there are with those that are 0: whole slices, or one of a power of 2."""
    return min(max(16, 1 << (num_features - 1).bit_length()), -(-num_features // FEATURES) * FEATURES)


def search_batch(
    x: Float[Array, "b n d"], codebook: Float[Array, "b k d"], offsets: Float[Array, "b k"], *, interpret: bool
) -> Found:
    """The same for any number of vectors, some of them at a time."""
    num_batches, num_vectors, num_features = x.shape
    if x.size == 0:  # under a map over nothing
        return jnp.zeros((num_batches, num_vectors), jnp.int32), jnp.zeros((num_batches, num_vectors))
    rows = max(1, AT_ONCE // depth_of(num_features))
    if num_batches * num_vectors <= rows and num_batches * codebook.shape[1] <= largest_codebook(num_features):
        return search_blocks_of(x, codebook, offsets, interpret=interpret)

    def search_one(x, codebook, offsets):
        found = search_blocks_of(x[None], codebook[None], offsets[None], interpret=interpret)
        return jax.tree.map(lambda leaf: leaf[0], found)

    def search_by_chunks(arguments):
        x, codebook, offsets = arguments
        return by_chunks(lambda rows: search_one(rows, codebook, offsets), x, rows, derivative=False)

    return lax.map(search_by_chunks, (x, codebook, offsets))


def largest_codebook(num_features: int) -> int:
    """How many codes of so many features the kernel can count."""
    return MAXIMAL_SIZE // depth_of(num_features) - FILLED


def on_each_device(search: Callable[..., Found]) -> Callable[..., Found]:
    """The same on the part of batch and vectors that each device has, where they are spread without a map."""

    def of_parts(mesh, arguments, results):
        del results
        batch, rows = (*arguments[0].sharding.spec, None, None)[:2]
        of = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))  # noqa: E731
        return mesh, search, (of(batch, rows),) * 2, (of(batch, rows, None), of(batch, None, None), of(batch, None))

    spread = custom_partitioning(search)
    rule = "b n d, b k d, b k -> b n, b n"
    spread.def_partition(of_parts, sharding_rule=rule, need_replication_factors=("d", "k"))
    return spread


def batched(search: Callable[..., Found]) -> Callable[..., Found]:
    """With a rule for ``jax.vmap``: another axis of vectors, or, where each has a codebook of its own, of both."""
    mapped = custom_vmap(search)

    @mapped.def_vmap
    def _(size, in_batched, x, codebook, offsets):
        new = batched(search)
        if not (in_batched[1] or in_batched[2]):
            rows = jnp.moveaxis(x, 0, 1)
            num_batches, _, num_vectors, num_features = rows.shape
            found = new(rows.reshape(num_batches, size * num_vectors, num_features), codebook, offsets)
            back = lambda leaf: jnp.moveaxis(leaf.reshape(rows.shape[:-1]), 1, 0)  # noqa: E731
        else:
            whole = [
                argument if is_batched else jnp.broadcast_to(argument, (size, *argument.shape))
                for argument, is_batched in zip((x, codebook, offsets), in_batched, strict=True)
            ]
            found = new(*(argument.reshape(size * argument.shape[1], *argument.shape[2:]) for argument in whole))
            back = lambda leaf: leaf.reshape(*whole[0].shape[:-1])  # noqa: E731
        return jax.tree.map(back, found), (True, True)

    return mapped


def search_fused(
    x: Float[Array, "n d"], codebook: Float[Array, "k d"], offsets: Float[Array, "k"], *, interpret: bool = False
) -> Found:
    """The first k with the least ``offsets[k] - x @ codebook[k]`` of each vector, and that: for NVIDIA GPUs.

    Of vectors and codes of one dtype, float32, bfloat16 or float16, at least one of each (:func:`is_fusible`). Where
    all scores are infinite or NaN, code 0 and infinity. ``interpret`` runs the kernel on any platform, slowly.
    """

    def search(x, codebook, offsets):
        return search_batch(x, codebook, offsets, interpret=interpret)

    whole = bool(jax.sharding.get_abstract_mesh().manual_axes)  # of the part that this device has
    found, minima = batched(search if whole else on_each_device(search))(x[None], codebook[None], offsets[None])
    return found[0], minima[0]


def is_fusible(num_vectors: int, num_codes: int, num_features: int, dtype: DTypeLike) -> bool:
    """Whether there is a kernel for these sizes and this dtype, on this mesh, on the GPUs that are here."""
    mesh = jax.sharding.get_abstract_mesh()
    return (
        min(num_vectors, num_codes, num_features) > 0
        and num_codes <= largest_codebook(num_features)
        and dtype in (jnp.float32, jnp.bfloat16, jnp.float16)
        and AxisType.Explicit not in mesh.axis_types
        and len(mesh.manual_axes) in (0, len(mesh.axis_names))
        and min(capabilities(), default=MINIMAL_CAPABILITY) >= MINIMAL_CAPABILITY
        and has_compiler()
    )


def has_compiler() -> bool:
    """Whether this JAX still compiles kernels by Triton."""
    try:
        importlib.import_module("jax.experimental.pallas.triton")
    except ImportError:
        return False
    return True


@functools.cache
def capabilities() -> tuple[float, ...]:
    """Those of the GPUs that are here; none, where a program is compiled for one that is elsewhere.

    The driver is asked, by NVIDIA's Management Library: JAX would start its backends, and a function may be traced
    before that.
    """
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ()
    count, found = ctypes.c_uint(0), []
    if library.nvmlInit_v2() != 0:
        return ()
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for number in range(count.value):
        device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(number), ctypes.byref(device))
        failed = library.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor))
        if not failed:
            found.append(major.value + minor.value / 10)
    library.nvmlShutdown()
    return tuple(found)
