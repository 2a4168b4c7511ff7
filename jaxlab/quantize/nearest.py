"""The nearest code of each vector, exactly, without the matrix of all distances."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxlab import _check
from jaxlab._chunks import by_chunks
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.quantize._fused import is_fusible, padded, search_fused
from jaxlab.quantize._sums import ONE_HOT_CHUNK

__all__ = ["nearest_code"]

# On a CPU, distances of so many vectors to so many codes at a time: 2 MiB, which stay in a cache.
TILE_VECTORS, TILE_CODES = 4096, 128
# Elsewhere, distances of one chunk of vectors to all codes, in bytes: enough to fill an accelerator.
CHUNK_BYTES = 2**24
# Above this many codes, their distances are reduced in blocks.
MAXIMAL_UNBLOCKED, BLOCK = 1024, 128


def unit(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Vectors of length one; a zero vector stays zero, and passes no gradient on."""
    # Scaled first, so that no square over- or underflows.
    largest = lax.stop_gradient(jnp.max(jnp.abs(x), -1, keepdims=True, initial=0))
    usable = (largest > 0) & jnp.isfinite(largest)
    scaled = jnp.where(usable, x, 1) / jnp.where(usable, largest, 1)
    length = jnp.sqrt(jnp.sum(scaled**2, -1, keepdims=True))
    return jnp.where(usable, scaled / length, jnp.where(largest == 0, 0, jnp.nan))


def first_minimum(scores: Float[Array, "n k"]) -> tuple[Int[Array, "n"], Float[Array, "n"]]:
    """The position of the first minimum of each row, and that minimum; position 0 in a row of NaN.

    In two passes, a minimum and then a search for it: the one-pass reduction of pairs that ``jnp.argmin`` is
    compiled to is not vectorised on CPUs.
    """
    size = scores.shape[-1]
    if size <= MAXIMAL_UNBLOCKED:
        minimum = jnp.min(scores, -1)
        # Counted in float32, which is exact this far, for the vector units; a NaN is equal to nothing.
        places = lax.broadcasted_iota(jnp.float32, scores.shape, 1)
        place = jnp.min(jnp.where(scores == minimum[:, None], places, size), -1).astype(jnp.int32)
        return jnp.where(place == size, 0, place), minimum
    blocks = scores.reshape(-1, size // BLOCK, BLOCK)
    block, minimum = first_minimum_of_few(jnp.min(blocks, -1))
    inside, _ = first_minimum_of_few(jnp.take_along_axis(blocks, block[:, None, None], 1)[:, 0])
    return block * BLOCK + inside, minimum


def first_minimum_of_few(scores: Float[Array, "n k"]) -> tuple[Int[Array, "n"], Float[Array, "n"]]:
    return jnp.argmin(scores, -1).astype(jnp.int32), jnp.min(scores, -1)


def scores_of(x: Float[Array, "n d"], codebook: Float[Array, "k d"], offsets: Float[Array, "k"]) -> Float[Array, "n k"]:
    """``offsets[k] - x @ codebook[k]``: half the squared distances, up to what is the same for all codes."""
    products = lax.dot_general(
        x,
        codebook,
        (((1,), (1,)), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=offsets.dtype,
    )
    return offsets[None] - products


def padded_to(
    multiple: int, codebook: Float[Array, "k d"], offsets: Float[Array, "k"]
) -> tuple[Float[Array, "l d"], Float[Array, "l"]]:
    """With codes at the end that are infinitely far from everything."""
    return padded(codebook, 0, multiple), padded(offsets, 0, multiple, jnp.inf)


def search_tiles(
    x: Float[Array, "n d"], codebook: Float[Array, "k d"], offsets: Float[Array, "k"]
) -> tuple[Int[Array, "n"], Float[Array, "n"]]:
    """The first k with the least score of each vector, and that score: for CPUs.

    Some codes at a time: of their scores only the minimum is taken, and all of them are kept if it is the least so
    far. So the position is looked for once, in the scores of one tile.
    """
    if codebook.shape[0] <= TILE_CODES:
        return first_minimum(scores_of(x, codebook, offsets))
    codebook, offsets = padded_to(TILE_CODES, codebook, offsets)
    tiles, offsets = codebook.reshape(-1, TILE_CODES, x.shape[1]), offsets.reshape(-1, TILE_CODES)

    def keep_better(best, tile):
        number, minimum, scores = best
        new_number, codes, offsets = tile
        new_scores = scores_of(x, codes, offsets)
        new_minimum = jnp.min(new_scores, -1)
        better = new_minimum < minimum
        return (
            jnp.where(better, new_number, number),
            jnp.where(better, new_minimum, minimum),
            jnp.where(better[:, None], new_scores, scores),
        ), None

    scores = scores_of(x, tiles[0], offsets[0])
    minimum = jnp.min(scores, -1)
    # A zero that varies over devices as the vectors do.
    first = jnp.where(jnp.isnan(minimum), 0, 0), minimum, scores
    others = jnp.arange(1, len(tiles), dtype=jnp.int32), tiles[1:], offsets[1:]
    (number, _, scores), _ = lax.scan(keep_better, first, others)
    place, minimum = first_minimum(scores)
    return number * TILE_CODES + place, minimum


def search_blocks(
    x: Float[Array, "n d"], codebook: Float[Array, "k d"], offsets: Float[Array, "k"]
) -> tuple[Int[Array, "n"], Float[Array, "n"]]:
    """The same with all scores in one product: for accelerators."""
    if codebook.shape[0] > MAXIMAL_UNBLOCKED:
        codebook, offsets = padded_to(BLOCK, codebook, offsets)
    return first_minimum(scores_of(x, codebook, offsets))


def first_of_all_devices(
    found: Int[Array, "n"], minima: Float[Array, "n"], num_codes: int, axis_name: str
) -> Int[Array, "n"]:
    """The lowest of the codes that reach the least minimum on any device; code 0 where all are NaN."""
    nowhere = jnp.iinfo(jnp.int32).max
    found = found + lax.axis_index(axis_name) * num_codes
    found = lax.pmin(jnp.where(minima == lax.pmin(minima, axis_name), found, nowhere), axis_name)
    return jnp.where(found == nowhere, 0, found)


def rows_by_gathering(codebook: Float[Array, "k d"], codes: Int[Array, "*n"]) -> Float[Array, "*n d"]:
    """The rows of these numbers, or the nearest ones that there are."""
    return codebook.at[codes].get(mode="clip")


def rows_by_products(codebook: Float[Array, "k d"], codes: Int[Array, "*n"]) -> Float[Array, "*n d"]:
    """The rows of these numbers by products with one-hot vectors, a chunk at a time; no one-hot vectors are kept."""
    num_codes = codebook.shape[0]

    def of_chunk(codebook, codes):
        one_hot = jax.nn.one_hot(codes, num_codes, dtype=codebook.dtype)
        return jnp.matmul(one_hot, codebook, precision=lax.Precision.HIGHEST)

    within = jnp.clip(jnp.where(codes < 0, codes + num_codes, codes), 0, num_codes - 1)
    found = by_chunks(of_chunk, within.reshape(-1), ONE_HOT_CHUNK, shared=codebook)
    return found.reshape(*codes.shape, codebook.shape[1])


def rows_at(codebook: Float[Array, "k d"], codes: Int[Array, "*n"]) -> Float[Array, "*n d"]:
    """The rows of these numbers, gathered, with the derivative that the platform is best at.

    The transpose of a look-up is a scattered addition, which a TPU does one after another; that of a product with
    one-hot vectors is a product, as those of ``code_sums``.
    """
    # No rows are gathered from nothing: in a vmap that would be no batch, as the derivative says it is.
    return gathered(codebook, codes) if codes.size else rows_by_gathering(codebook, codes)


gathered = jax.custom_jvp(rows_by_gathering)


@gathered.defjvp
def _(primals, tangents):
    (codebook, codes), (change, _) = primals, tangents
    moved = lax.platform_dependent(change, codes, tpu=rows_by_products, default=rows_by_gathering)
    return gathered(codebook, codes), moved


def lookup(
    codebook: Float[Array, "k d"], codes: Int[Array, "*n"], axis_name: str | None = None
) -> Float[Array, "*n d"]:
    """``codebook[codes]``; of a codebook spread over devices in equal parts, if ``axis_name`` is given."""
    if axis_name is None:
        return rows_at(codebook, codes)
    local = codes - lax.axis_index(axis_name) * codebook.shape[0]
    here = (local >= 0) & (local < codebook.shape[0])
    # One device has the row, the others add zeros: no bit changes.
    return lax.psum(jnp.where(here[..., None], rows_at(codebook, local), 0), axis_name)


@jit(static=("cosine", "operand_dtype", "chunk_size", "kernel", "axis_name"))
def nearest_code(
    x: Float[Array, "*n d"],
    codebook: Float[Array, "k d"],
    *,
    cosine: bool = False,
    centre: Float[Array, "d"] | None = None,
    operand_dtype: DTypeLike | None = None,
    chunk_size: int | None = None,
    kernel: bool = True,
    axis_name: str | None = None,
) -> Int[Array, "*n"]:
    r"""The index of the code nearest to each vector: exact, and in memory that does not grow with their number.

    .. math:: i = \min \arg\min_k \lVert x - E_k \rVert^2 = \min \arg\min_k \tfrac12\lVert E_k \rVert^2 - x \cdot E_k

    The distances of a chunk of vectors (on a CPU: to some of the codes) are reduced before those of the next are made.
    All is computed in float32 at least, whatever the dtypes of the vectors and of the codebook, which may differ.

    Args:
      x: vectors.
      codebook: one code in each row. With ``axis_name``, this device's part of it.
      cosine: take the code of the largest cosine instead; a zero vector, to which all are alike, gets code 0.
      centre: a vector subtracted from ``x`` and ``codebook`` before the products: one near the mean of the codes makes
        products of low precision safe where that mean is far from zero. Not used for cosines.
      operand_dtype: round the operands of the products to this dtype, ``jnp.bfloat16`` for the matrix units of
        accelerators at full speed. Sums stay in float32; a vector near the border of two cells may then get the other
        (0.5% of normal vectors, 64 features: ``python -m benchmarks.platform_speed --only wrong``). By default products
        are exact to float32 on every platform, and not rounded as those of ``x @ codebook.T`` on a TPU.
      chunk_size: how many vectors at a time; by default 4,096 on a CPU, to 128 codes at a time (2 MiB), and on other
        platforms so many that their distances to all codes take 16 MiB. The kernel stores none, and has no use for it.
      kernel: on an NVIDIA GPU (of compute capability 8 or more) search by one kernel written by hand; False: as the
        compiler does it on other platforms.
      axis_name: of a mapped axis over which the codebook is spread, in equal parts, first codes on the first device.

    Returns:
      Integers in [0, k), the lowest one where several codes are equally near; 0 for a vector with NaN. They are the
      same however the codebook is spread, if products over features are summed in an order that does not depend on
      the number of codes (so it is on CPUs).

    Gradient:
      None: the codes are integers.

    Raises:
      ValueError: if the numbers of features differ, the codebook is empty, or ``chunk_size`` is below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> codebook = jnp.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
      >>> nearest_code(jnp.array([[0.2, 0.1], [0.9, 2.0], [0.5, 0.5]]), codebook).tolist()
      [0, 1, 0]
    """
    if x.ndim == 0 or codebook.ndim != 2 or x.shape[-1] != codebook.shape[1]:
        raise ValueError(
            "nearest_code: x [..., d] and codebook [k, d] must have the same number of features;"
            f" got x {list(x.shape)}, codebook {list(codebook.shape)}"
        )
    if codebook.shape[0] == 0:
        raise ValueError("nearest_code: codebook must have at least one code; got none")
    if chunk_size is not None:
        _check.at_least("nearest_code", "chunk_size", chunk_size, 1)
    x, codebook = lax.stop_gradient((x, codebook))
    num_codes, num_features = codebook.shape
    dtype = jnp.promote_types(widen(x).dtype, widen(codebook).dtype)
    vectors, codes = x.astype(dtype).reshape(math.prod(x.shape[:-1]), num_features), codebook.astype(dtype)
    if cosine:
        codes = unit(codes)
    elif centre is not None:
        centre = lax.stop_gradient(centre).astype(dtype)
        vectors, codes = vectors - centre[None], codes - centre[None]
    operands = jnp.finfo(dtype if operand_dtype is None else operand_dtype)
    if operands.bits < jnp.finfo(dtype).bits:
        vectors, codes = (lax.reduce_precision(x, operands.nexp, operands.nmant) for x in (vectors, codes))
    offsets = jnp.zeros(num_codes, dtype) if cosine else jnp.sum(codes**2, -1) / 2

    def searching(search, size, operands):
        def run(x, codes, offsets):
            codes = codes.astype(operands)
            return by_chunks(lambda x: search(x, codes, offsets), x.astype(operands), size, derivative=False)

        return run

    # A CPU gains nothing from narrow operands, and loses the order of its sums.
    platforms = {"cpu": searching(search_tiles, chunk_size or TILE_VECTORS, dtype)}
    if kernel and is_fusible(len(vectors), num_codes, num_features, operands.dtype):
        platforms["cuda"] = searching(search_fused, len(vectors), operands.dtype)
    other = searching(search_blocks, chunk_size or max(1, CHUNK_BYTES // (4 * num_codes)), operands.dtype)
    found, minima = lax.platform_dependent(vectors, codes, offsets, default=other, **platforms)
    if axis_name is not None:
        found = first_of_all_devices(found, minima, num_codes, axis_name)
    return found.reshape(x.shape[:-1])
