"""How a gradient passes a code: interchangeable operators ``(key, hard, soft)`` for the option ``gradient``.

``hard`` are the codes' vectors and ``soft`` the encoder's. :func:`jaxlab.gradients.diveq` is one more.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab import gradients
from jaxlab.quantize.contract import consume

__all__ = ["GradientOperator", "by_derivative", "by_rotation", "by_straight_through"]


@runtime_checkable
class GradientOperator(Protocol):
    """Gives (about) the value of ``hard``, with a gradient for ``soft``, for ``hard``, or for both."""

    def __call__(
        self, key: PRNGKeyArray, hard: Float[Array, "*n d"], soft: Float[Array, "*n d"]
    ) -> Float[Array, "*n d"]:
        """The vectors that the decoder sees."""
        ...


def by_straight_through(
    key: PRNGKeyArray, hard: Float[Array, "*n d"], soft: Float[Array, "*n d"]
) -> Float[Array, "*n d"]:
    """The code's vector, with the gradient copied to the encoder: :func:`jaxlab.gradients.straight_through`.

    Args:
      key: consumed; nothing is drawn.
      hard: the vectors of the codes.
      soft: the encoder's vectors.

    Returns:
      ``hard``, bit for bit.

    Gradient:
      The upstream gradient to ``soft`` (biased), none to ``hard``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> by_straight_through(jax.random.key(0), jnp.ones((1, 2)), jnp.zeros((1, 2))).tolist()
      [[1.0, 1.0]]

    Reference:
      van den Oord, Vinyals, Kavukcuoglu, "Neural Discrete Representation Learning", 2017, section 3.2.
      https://arxiv.org/abs/1711.00937
    """
    consume(key)
    return gradients.straight_through(hard, soft)


def by_rotation(key: PRNGKeyArray, hard: Float[Array, "*n d"], soft: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """The code's vector, with the gradient rotated back to the encoder: :func:`jaxlab.gradients.rotation_trick`.

    Args:
      key: consumed; nothing is drawn.
      hard: the vectors of the codes.
      soft: the encoder's vectors.

    Returns:
      ``hard``, bit for bit.

    Gradient:
      The upstream gradient, rotated as ``hard`` to ``soft`` and scaled, to ``soft`` (biased); none to ``hard``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> by_rotation(jax.random.key(0), jnp.ones((1, 2)), jnp.zeros((1, 2))).tolist()
      [[1.0, 1.0]]

    Reference:
      Fifty et al., "Restructuring Vector Quantization with the Rotation Trick", 2025.
      https://arxiv.org/abs/2410.06424
    """
    consume(key)
    return gradients.rotation_trick(hard, soft)


def by_derivative(key: PRNGKeyArray, hard: Float[Array, "*n d"], soft: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """The code's vector with its own derivative: the decoder trains the codebook, and the encoder gets nothing.

    Args:
      key: consumed; nothing is drawn.
      hard: the vectors of the codes.
      soft: the encoder's vectors; not used.

    Returns:
      ``hard``.

    Gradient:
      The exact one: the upstream gradient to ``hard``, none to ``soft``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> by_derivative(jax.random.key(0), jnp.ones((1, 2)), jnp.zeros((1, 2))).tolist()
      [[1.0, 1.0]]
    """
    del soft
    consume(key)
    return hard
