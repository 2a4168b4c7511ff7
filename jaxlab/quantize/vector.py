"""Vector quantizers trained by gradient: all of the codebook, or a matrix in front of it."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxlab import _check
from jaxlab._precision import widen
from jaxlab.quantize.codebook import CodeAssignment, Parts, by_nearest_code, check_weights, codebook_quantizer
from jaxlab.quantize.contract import Quantizer, claims
from jaxlab.quantize.initial import InitialCodes, normal_codes
from jaxlab.quantize.through import GradientOperator, by_straight_through

__all__ = ["sim_vector_quantizer", "vector_quantizer"]


@claims(lambda factory: factory(num_codes=8), idempotent=True, trained=True)
def vector_quantizer(
    *,
    num_codes: int,
    codebook_weight: float = 1.0,
    commitment_weight: float = 0.25,
    cosine: bool = False,
    gradient: GradientOperator = by_straight_through,
    assign: CodeAssignment = by_nearest_code,
    initial_codes: InitialCodes = normal_codes,
    axis_name: str | None = None,
    code_axis_name: str | None = None,
) -> Quantizer:
    r"""The vector quantizer whose codebook is trained by the gradient of a loss.

    .. math:: z = E_i, \quad i = \arg\min_k \lVert x - E_k \rVert^2, \qquad
              L = \alpha\, \overline{(\mathrm{sg}(x) - E_i)^2} + \beta\, \overline{(x - \mathrm{sg}(E_i))^2}

    The bars are means over vectors and features, as in haiku's. ``params`` is the codebook, ``state`` is empty.

    Args:
      num_codes: size of the codebook.
      codebook_weight: :math:`\alpha`, which moves codes to vectors.
      commitment_weight: :math:`\beta`, which moves vectors to codes.
      cosine: quantize directions: vectors and codes are scaled to length one first, and values have length one. A zero
        vector stays zero and gets code 0.
      gradient: how the gradient passes from values to vectors and codes.
      assign: how a code is chosen in training; evaluation takes the nearest one.
      initial_codes: makes the codebook from a sample.
      axis_name: of the axis over which the sample is spread, for ``init``.
      code_axis_name: of the axis over which the codebook is spread, in equal parts, for everything but ``init``.

    Returns:
      A quantizer; values and loss have a gradient, codes are in [0, num_codes).

    Gradient:
      Of values: that of ``gradient``, by default straight-through (biased). Of the loss: exact.

    Raises:
      ValueError: for fewer than 1 code or a negative weight; from its functions, for vectors of another number of
        features than the codebook's and a mask of another shape.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> quantizer = vector_quantizer(num_codes=16)
      >>> x = jax.random.normal(jax.random.key(0), (32, 4))
      >>> params, state = quantizer.init(jax.random.key(1), x)
      >>> quantized, state = quantizer.apply(jax.random.key(2), params, state, x)
      >>> bool((quantized.values == params[quantized.codes]).all())
      True

    Reference:
      van den Oord, Vinyals, Kavukcuoglu, "Neural Discrete Representation Learning", 2017, eq. (3).
      https://arxiv.org/abs/1711.00937
    """
    _check.at_least("vector_quantizer", "num_codes", num_codes, 1)
    check_weights("vector_quantizer", codebook_weight=codebook_weight, commitment_weight=commitment_weight)

    def init(
        key: PRNGKeyArray, sample: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Any, Any]:
        return initial_codes(key, sample, num_codes=num_codes, mask=mask, axis_name=axis_name), ()

    return codebook_quantizer(
        Parts(
            name="vector_quantizer",
            num_codes=num_codes,
            init=init,
            codebook=lambda params, state: params,
            update=None,
            codebook_weight=codebook_weight,
            commitment_weight=commitment_weight,
            cosine=cosine,
            gradient=gradient,
            code_axis_name=code_axis_name,
        ),
        assign,
    )


def latent_codes(
    key: PRNGKeyArray,
    sample: Float[Array, "*n d"],
    *,
    num_codes: int,
    mask: Bool[Array, "*n"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    """Normal codes of length about one, whatever the sample."""
    del mask, axis_name
    num_features = sample.shape[-1]
    return jax.random.normal(key, (num_codes, num_features), widen(sample).dtype) / num_features**0.5


@claims(lambda factory: factory(num_codes=8), idempotent=True, trained=True)
def sim_vector_quantizer(
    *,
    num_codes: int,
    codebook_weight: float = 1.0,
    commitment_weight: float = 0.25,
    gradient: GradientOperator = by_straight_through,
    assign: CodeAssignment = by_nearest_code,
    initial_codes: InitialCodes = latent_codes,
) -> Quantizer:
    r"""SimVQ: a fixed random codebook seen through one trained matrix, so that every code moves in every step.

    .. math:: E = E_0 W, \qquad
              L = \alpha\, \overline{(\mathrm{sg}(x) - E_i)^2} + \beta\, \overline{(x - \mathrm{sg}(E_i))^2}

    ``params`` is :math:`W` [d, d], the identity at first; ``state`` is :math:`E_0`, which is never updated.

    Args:
      num_codes: size of the codebook.
      codebook_weight: :math:`\alpha`, which moves codes to vectors.
      commitment_weight: :math:`\beta`, which moves vectors to codes.
      gradient: how the gradient passes from values to vectors and codes.
      assign: how a code is chosen in training; evaluation takes the nearest one.
      initial_codes: makes :math:`E_0` from a sample; by default N(0, 1/d), whatever the sample.

    Returns:
      A quantizer; values and loss have a gradient, codes are in [0, num_codes).

    Gradient:
      Of values: that of ``gradient``, by default straight-through (biased). Of the loss: exact. None to the state.

    Raises:
      ValueError: for fewer than 1 code or a negative weight; from its functions, for vectors of another number of
        features than the codebook's and a mask of another shape.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> quantizer = sim_vector_quantizer(num_codes=16)
      >>> params, state = quantizer.init(jax.random.key(0), jnp.ones((1, 4)))
      >>> params.shape, state.shape
      ((4, 4), (16, 4))

    Reference:
      Zhu et al., "Addressing Representation Collapse in Vector Quantized Models with One Linear Layer", 2024.
      https://arxiv.org/abs/2411.02038
    """
    _check.at_least("sim_vector_quantizer", "num_codes", num_codes, 1)
    check_weights("sim_vector_quantizer", codebook_weight=codebook_weight, commitment_weight=commitment_weight)

    def init(
        key: PRNGKeyArray, sample: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Any, Any]:
        frozen = initial_codes(key, sample, num_codes=num_codes, mask=mask)
        return jnp.eye(frozen.shape[1], dtype=frozen.dtype), frozen

    def codebook(params, state):
        return jnp.matmul(lax.stop_gradient(state), params, precision=lax.Precision.HIGHEST)

    return codebook_quantizer(
        Parts(
            name="sim_vector_quantizer",
            num_codes=num_codes,
            init=init,
            codebook=codebook,
            update=None,
            codebook_weight=codebook_weight,
            commitment_weight=commitment_weight,
            cosine=False,
            gradient=gradient,
            code_axis_name=None,
        ),
        assign,
    )
