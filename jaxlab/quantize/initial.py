"""Codebooks to start from: functions of a key and a sample for the option ``initial_codes``."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.quantize._sums import code_sums, num_rows, random_counted_rows
from jaxlab.quantize.contract import check_vectors, finite, flat_mask
from jaxlab.quantize.nearest import nearest_code

__all__ = ["InitialCodes", "kmeans", "normal_codes", "random_rows"]


@runtime_checkable
class InitialCodes(Protocol):
    """Makes a codebook from typical vectors."""

    def __call__(
        self,
        key: PRNGKeyArray,
        sample: Float[Array, "*n d"],
        *,
        num_codes: int,
        mask: Bool[Array, "*n"] | None = None,
        axis_name: str | None = None,
    ) -> Float[Array, "k d"]:
        """The codebook, in float32 at least; the same on all devices along ``axis_name``."""
        ...


def prepared(name, sample, num_codes, mask):
    """The sample as a matrix in float32 at least, and which of its rows count."""
    _check.at_least(name, "num_codes", num_codes, 1)
    check_vectors(name, sample, None, mask)
    x = lax.stop_gradient(widen(sample)).reshape(-1, sample.shape[-1])
    return x, flat_mask(sample, mask) & finite(x)


def check_enough(name: str, total: int, num_codes: int) -> None:
    if total < num_codes:
        raise ValueError(
            f"{name}: sample must have at least as many vectors as there are codes, {num_codes}; got {total}"
            " (normal_codes makes a codebook from any number)"
        )


@jit(static=("num_codes", "axis_name"))
def normal_codes(
    key: PRNGKeyArray,
    sample: Float[Array, "*n d"],
    *,
    num_codes: int,
    mask: Bool[Array, "*n"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    """Normal codes with mean and standard deviation of the sample in each feature.

    Args:
      key: consumed.
      sample: typical vectors, any number of them; features that do not vary get a standard deviation of one.
      num_codes: how many codes to make.
      mask: which vectors count.
      axis_name: of the axis over which vectors are spread.

    Returns:
      A codebook in float32 (float64 for float64 samples), the same on all devices.

    Gradient:
      None: it is a constant.

    Raises:
      ValueError: if ``num_codes`` is below 1, or the mask of another shape.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> normal_codes(jax.random.key(0), jnp.ones((1, 3)), num_codes=8).shape
      (8, 3)
    """
    x, counted = prepared("normal_codes", sample, num_codes, mask)
    x = jnp.where(counted[:, None], x, 0)

    def mean_of(rows):
        sums, count = jnp.sum(rows, 0), jnp.sum(counted).astype(x.dtype)
        if axis_name is not None:
            sums, count = lax.psum((sums, count), axis_name)
        return sums / jnp.maximum(count, 1)

    mean = mean_of(x)
    deviation = jnp.sqrt(mean_of(jnp.where(counted[:, None], (x - mean[None]) ** 2, 0)))
    noise = jax.random.normal(key, (num_codes, x.shape[1]), x.dtype)
    return mean[None] + jnp.where(deviation > 0, deviation, 1)[None] * noise


@jit(static=("num_codes", "axis_name"))
def random_rows(
    key: PRNGKeyArray,
    sample: Float[Array, "*n d"],
    *,
    num_codes: int,
    mask: Bool[Array, "*n"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    """Codes that are vectors of the sample, drawn without replacement.

    Args:
      key: consumed.
      sample: typical vectors, at least ``num_codes``.
      num_codes: how many codes to make.
      mask: which vectors count; codes repeat if these are fewer than ``num_codes``.
      axis_name: of the axis over which vectors are spread.

    Returns:
      A codebook in float32 (float64 for float64 samples), the same on all devices, and the same as on one.

    Gradient:
      None: it is a constant.

    Raises:
      ValueError: if there are fewer vectors than codes, or the mask has another shape.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> sorted(random_rows(jax.random.key(0), jnp.array([[1.0], [2.0], [3.0]]), num_codes=3).ravel().tolist())
      [1.0, 2.0, 3.0]
    """
    x, counted = prepared("random_rows", sample, num_codes, mask)
    check_enough("random_rows", num_rows(x, axis_name), num_codes)
    return random_counted_rows(key, x, counted, num=num_codes, axis_name=axis_name)


@jit(static=("num_codes", "num_iterations", "axis_name"))
def kmeans(
    key: PRNGKeyArray,
    sample: Float[Array, "*n d"],
    *,
    num_codes: int,
    num_iterations: int = 10,
    mask: Bool[Array, "*n"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    r"""Codes that are means of the vectors nearest to them: Lloyd's algorithm from random vectors of the sample.

    .. math:: E_k \leftarrow \frac{1}{n_k} \sum_{i(x) = k} x

    Args:
      key: consumed.
      sample: typical vectors, at least ``num_codes``.
      num_codes: how many codes to make.
      num_iterations: how often the means are taken; a code without vectors stays where it is.
      mask: which vectors count; codes repeat if these are fewer than ``num_codes``.
      axis_name: of the axis over which vectors are spread.

    Returns:
      A codebook in float32 (float64 for float64 samples), the same on all devices.

    Gradient:
      None: it is a constant.

    Raises:
      ValueError: if there are fewer vectors than codes, ``num_iterations`` is below 0, or the mask has another shape.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> sample = jnp.array([[0.0], [1.0], [10.0], [11.0]])
      >>> sorted(kmeans(jax.random.key(0), sample, num_codes=2).ravel().tolist())
      [0.5, 10.5]
    """
    x, counted = prepared("kmeans", sample, num_codes, mask)
    check_enough("kmeans", num_rows(x, axis_name), num_codes)
    _check.at_least("kmeans", "num_iterations", num_iterations, 0)

    def take_means(_, codebook):
        codes = nearest_code(x, codebook)
        counts, sums = code_sums(x, codes, counted, num_codes=num_codes, axis_name=axis_name)
        return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], codebook)

    start = random_counted_rows(key, x, counted, num=num_codes, axis_name=axis_name)
    return lax.fori_loop(0, num_iterations, take_means, start)
