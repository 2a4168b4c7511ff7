"""The affine map in front of a cell, its products and their gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen

__all__ = ["Affine", "uniform_affine"]


class Affine(NamedTuple):
    r"""The weights in front of a cell: :math:`a_t = W x_t + U h_{t-1} + b`.

    The inputs go to the first p of the m pre-activations and the hidden state to the last q. In most cells
    p = q = m; a cell whose first pre-activations depend on the inputs alone has q < m, and so on.
    """

    input: Float[Array, "d p"]
    recurrent: Float[Array, "h q"]
    bias: Float[Array, "m"]


def product(x: Float[Array, "*batch d"], matrix: Float[Array, "d k"]) -> Float[Array, "*batch k"]:
    """``x @ matrix``: the operands in the dtype of the matrix, the sums in float32 at least."""
    wide = widen(jnp.zeros((), matrix.dtype)).dtype
    return jnp.matmul(x.astype(matrix.dtype), matrix, preferred_element_type=wide)


def place(columns: Float[Array, "*batch k"], width: int, *, last: bool) -> Float[Array, "*batch m"]:
    """``columns`` among ``width`` of them, the others 0."""
    missing = width - columns.shape[-1]
    if missing == 0:
        return columns
    around = (missing, 0, 0) if last else (0, missing, 0)
    return lax.pad(columns, jnp.zeros((), columns.dtype), [(0, 0, 0)] * (columns.ndim - 1) + [around])


def project(weights: Affine, inputs: Float[Array, "*batch d"]) -> Float[Array, "*batch m"]:
    """What the inputs and the bias contribute to the pre-activations."""
    projected = place(product(inputs, weights.input), weights.bias.shape[0], last=False)
    return projected + widen(weights.bias).reshape((1,) * (projected.ndim - 1) + (-1,))


def gradient_of_product(x: Float[Array, "*batch d"], cotangent: Float[Array, "*batch k"], like: Array) -> Array:
    """The gradient of ``product(x, like)`` with respect to the matrix: one product over all leading axes."""
    # Over time and batch without making one axis of them: of a batch that is spread over devices, that would be sent
    # to all of them.
    x, cotangent = (y.astype(like.dtype) for y in (x, cotangent))
    leading = tuple(range(x.ndim - 1))
    wide = widen(jnp.zeros((), like.dtype)).dtype
    gradient = lax.dot_general(x, cotangent, ((leading, leading), ((), ())), preferred_element_type=wide)
    return gradient.astype(like.dtype)


@jit(static=("input_dim", "hidden_dim", "input_columns", "recurrent_columns", "num_preactivations"))
def uniform_affine(
    key: PRNGKeyArray,
    *,
    input_dim: int,
    hidden_dim: int,
    num_preactivations: int,
    input_columns: int | None = None,
    recurrent_columns: int | None = None,
) -> Affine:
    r"""Initial weights, uniform within the inverse root of the size of what they multiply.

    .. math:: W, b_x \sim U(\pm d^{-1/2}), \qquad U, b_h \sim U(\pm h^{-1/2}), \qquad b = b_x + b_h

    the law of the weights of two ``torch.nn.Linear``, one for the inputs and one for the hidden state. (There the
    two biases are trained apart, which makes the step of their sum twice as long.)

    Args:
      key: consumed.
      input_dim: features of one input, d.
      hidden_dim: hidden units, h.
      num_preactivations: of one step, m: 4 h for an LSTM.
      input_columns: how many of them, from the first on, depend on the inputs; all by default.
      recurrent_columns: how many of them, to the last one, depend on the hidden state; all by default.

    Returns:
      The weights, in float32.

    Gradient:
      None: they are constants.

    Raises:
      ValueError: if a size is below 1, or there are more columns than pre-activations.

    Examples:
      >>> import jax
      >>> weights = uniform_affine(jax.random.key(0), input_dim=4, hidden_dim=9, num_preactivations=36)
      >>> bool(abs(weights.input).max() <= 1 / 2), bool(abs(weights.recurrent).max() <= 1 / 3)
      (True, True)
    """
    input_columns = num_preactivations if input_columns is None else input_columns
    recurrent_columns = num_preactivations if recurrent_columns is None else recurrent_columns
    sizes = {"input_dim": input_dim, "hidden_dim": hidden_dim, "num_preactivations": num_preactivations}
    for name, size in sizes.items():
        _check.at_least("uniform_affine", name, size, 1)
    for name, columns in (("input_columns", input_columns), ("recurrent_columns", recurrent_columns)):
        _check.at_least("uniform_affine", name, columns, 1)
        if columns > num_preactivations:
            raise ValueError(f"uniform_affine: {name} must be at most {num_preactivations}; got {columns}")

    def uniform(key, shape, dim):
        return jax.random.uniform(key, shape, jnp.float32, -(dim**-0.5), dim**-0.5)

    keys = jax.random.split(key, 4)
    input_bias = place(uniform(keys[2], (input_columns,), input_dim), num_preactivations, last=False)
    recurrent_bias = place(uniform(keys[3], (recurrent_columns,), hidden_dim), num_preactivations, last=True)
    return Affine(
        uniform(keys[0], (input_dim, input_columns), input_dim),
        uniform(keys[1], (hidden_dim, recurrent_columns), hidden_dim),
        input_bias + recurrent_bias,
    )
