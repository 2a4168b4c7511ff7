"""Sums over the vectors of each code, and vectors picked by their number, on one device or over many."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

# Vectors at a time in the one-hot form: as many as make a square of 128 x 128 units worth while.
ONE_HOT_CHUNK = 1024


def sums_by_segments(
    x: Float[Array, "n d"], places: Int[Array, "n"], *, num_codes: int
) -> tuple[Float[Array, "k"], Float[Array, "k d"]]:
    """Counts and sums by scattered additions; a place of ``num_codes`` is nowhere."""
    ones = jnp.ones(x.shape[0], x.dtype)
    counts = jax.ops.segment_sum(ones, places, num_codes, mode="drop")
    return counts, jax.ops.segment_sum(x, places, num_codes, mode="drop")


def sums_by_products(
    x: Float[Array, "n d"], places: Int[Array, "n"], *, num_codes: int
) -> tuple[Float[Array, "k"], Float[Array, "k d"]]:
    """Counts and sums by products with one-hot vectors, a chunk at a time: for matrix units that scatter slowly."""
    missing = -x.shape[0] % ONE_HOT_CHUNK
    # A chunk has vectors from all over x, as in nearest_code: of those of each device its part.
    x = jnp.pad(x, ((0, missing), (0, 0))).reshape(ONE_HOT_CHUNK, -1, x.shape[1]).swapaxes(0, 1)
    places = jnp.pad(places, (0, missing), constant_values=num_codes).reshape(ONE_HOT_CHUNK, -1).swapaxes(0, 1)

    def add(total, chunk):
        vectors, places = chunk
        one_hot = jax.nn.one_hot(places, num_codes, dtype=x.dtype)
        sums = jnp.matmul(one_hot.T, vectors, precision=lax.Precision.HIGHEST)
        return (total[0] + jnp.sum(one_hot, 0), total[1] + sums), None

    # Zeros of the vectors' own kind: in a shard_map they vary over devices as the sums will.
    zero = jnp.sum(x) * 0 + jnp.sum(places).astype(x.dtype) * 0
    start = (jnp.zeros(num_codes, x.dtype) + zero, jnp.zeros((num_codes, x.shape[-1]), x.dtype) + zero)
    return lax.scan(add, start, (x, places))[0]


def counts_by_segments(places: Int[Array, "n"], *, num_codes: int) -> Int[Array, "k"]:
    """How often there is each place, by scattered additions; a place of ``num_codes`` is nowhere."""
    return jax.ops.segment_sum(jnp.ones_like(places), places, num_codes, mode="drop")


def counts_by_comparisons(places: Int[Array, "n"], *, num_codes: int) -> Int[Array, "k"]:
    """How often there is each place, by comparisons with all of them, which are added as they are made."""
    return jnp.sum(places[:, None] == jnp.arange(num_codes, dtype=places.dtype)[None], 0, dtype=places.dtype)


def counts_of(places: Int[Array, "n"], *, num_codes: int) -> Int[Array, "k"]:
    """How often there is each place, as the platform does it best."""
    return lax.platform_dependent(
        places,
        tpu=functools.partial(counts_by_comparisons, num_codes=num_codes),
        default=functools.partial(counts_by_segments, num_codes=num_codes),
    )


def code_sums(
    x: Float[Array, "n d"],
    codes: Int[Array, "n"],
    counted: Bool[Array, "n"],
    *,
    num_codes: int,
    axis_name: str | None = None,
    code_axis_name: str | None = None,
) -> tuple[Float[Array, "k"], Float[Array, "k d"]]:
    """For each code, how many of the counted vectors have it, and their sum.

    Args:
      x: vectors; what is not counted may be NaN.
      codes: of each vector.
      counted: which vectors enter.
      num_codes: how many codes there are, or with ``code_axis_name`` how many on this device.
      axis_name: of the axis over which vectors are spread, to sum over.
      code_axis_name: of the axis over which codes are spread.

    Returns:
      Counts and sums. By scattered additions, but on a TPU by products.
    """
    x = jnp.where(counted[:, None], x, 0)
    if code_axis_name is not None:
        codes = codes - lax.axis_index(code_axis_name) * num_codes
    places = jnp.where(counted & (codes >= 0) & (codes < num_codes), codes, num_codes)
    found = lax.platform_dependent(
        x,
        places,
        tpu=functools.partial(sums_by_products, num_codes=num_codes),
        default=functools.partial(sums_by_segments, num_codes=num_codes),
    )
    return found if axis_name is None else lax.psum(found, axis_name)


def num_rows(x: Float[Array, "n d"], axis_name: str | None) -> int:
    """How many vectors there are on all devices together."""
    return x.shape[0] * (1 if axis_name is None else lax.axis_size(axis_name))


def pick(x: Num[Array, "n *d"], rows: Int[Array, "k"], axis_name: str | None) -> Num[Array, "k *d"]:
    """The rows of these numbers, where those of the first device along ``axis_name`` come first."""
    if axis_name is None:
        return x[rows]
    local = rows - lax.axis_index(axis_name) * x.shape[0]
    here = ((local >= 0) & (local < x.shape[0])).reshape(-1, *(1,) * (x.ndim - 1))
    picked = jnp.where(here, x.at[local].get(mode="clip"), jnp.zeros((), x.dtype))
    return lax.psum(picked, axis_name)


def spread_rows(
    key: PRNGKeyArray,
    x: Float[Array, "n d"],
    counted: Bool[Array, "n"],
    *,
    num: int,
    axis_name: str | None = None,
    code_axis_name: str | None = None,
) -> tuple[Float[Array, "k d"], Bool[Array, "k"]]:
    """``num`` vectors at equal distances from a random start, in a random rotation; and which of them are usable.

    Not usable are those that do not count, and repetitions where there are fewer vectors than asked for. With
    ``code_axis_name``, each device along that axis gets its part of what one device would get.
    """
    key_start, key_turn = jax.random.split(key)
    total = num_rows(x, axis_name)
    start = jax.random.uniform(key_start)
    # Exact in integers: the row of the j-th is floor(j * total / num), shifted by the random start.
    step, rest = divmod(total, num)
    order = jnp.arange(num, dtype=jnp.int32)
    # j * rest may exceed int32 for a huge codebook: in float32, whose rounding moves a row by little.
    rows = order * step + jnp.floor(order.astype(jnp.float32) * (rest / num)).astype(jnp.int32)
    fresh = jnp.concatenate([jnp.ones(1, bool), rows[1:] != rows[:-1]])
    rows = (rows + jnp.floor(start * total).astype(jnp.int32)) % total
    turn = jax.random.randint(key_turn, (), 0, num)
    rows, fresh = jnp.roll(rows, turn), jnp.roll(fresh, turn)
    if code_axis_name is not None:
        local = num // lax.axis_size(code_axis_name)
        first = lax.axis_index(code_axis_name) * local
        rows, fresh = (lax.dynamic_slice_in_dim(each, first, local) for each in (rows, fresh))
    usable = fresh & (pick(counted.astype(jnp.int32), rows, axis_name) > 0)
    return pick(jnp.where(counted[:, None], x, 0), rows, axis_name), usable


def random_counted_rows(
    key: PRNGKeyArray, x: Float[Array, "n d"], counted: Bool[Array, "n"], *, num: int, axis_name: str | None = None
) -> Float[Array, "k d"]:
    """``num`` different random vectors of those that count; they repeat if fewer than that do."""
    everywhere = pick(counted.astype(jnp.int32), jnp.arange(num_rows(x, axis_name)), axis_name) > 0
    priority = jnp.where(everywhere, jax.random.uniform(key, everywhere.shape), 2)
    # A sort: a top-k of spread vectors would gather them on some platforms.
    rows = jnp.argsort(priority)[:num].astype(jnp.int32)
    available = jnp.maximum(jnp.sum(everywhere), 1).astype(jnp.int32)
    rows = rows[jnp.arange(num, dtype=jnp.int32) % available]
    return pick(jnp.where(counted[:, None], x, 0), rows, axis_name)
