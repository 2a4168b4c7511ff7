"""Quantizers that choose a code by chance, and one whose codebook is chance."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, ScalarLike

from jaxlab import _check
from jaxlab._chunks import by_chunks, key_of_each
from jaxlab._precision import widen
from jaxlab.gradients import straight_through
from jaxlab.gumbel import perturb
from jaxlab.quantize.codebook import check_weights
from jaxlab.quantize.contract import (
    Quantized,
    Quantizer,
    check_vectors,
    claims,
    consume,
    flat_mask,
    mean_over,
    quantized,
    without_negative,
)
from jaxlab.quantize.nearest import lookup, nearest_code, unit

__all__ = ["GumbelParams", "RandomProjection", "gumbel_quantizer", "random_projection_quantizer"]

# Logits of so many bytes at a time. Making noise twice takes longer than all the rest: not for less.
CHUNK_BYTES = 2**26


class GumbelParams(NamedTuple):
    """A linear map from features to logits of codes, and the codebook."""

    weights: Float[Array, "d k"]
    biases: Float[Array, "k"]
    codebook: Float[Array, "k e"]


@claims(lambda factory: factory(num_codes=8), deterministic=False, straight_through=False, trained=True)
def gumbel_quantizer(
    *,
    num_codes: int,
    temperature: ScalarLike = 1.0,
    uniformity_weight: float = 5e-4,
    chunk_size: int | None = None,
) -> Quantizer:
    r"""Codes drawn from a softmax of the features, with the gradient of a Gumbel-softmax relaxation.

    .. math:: \phi = x W + b, \quad i = \arg\max_k (\phi_k + G_k), \quad z = E_i, \quad
              L = w\, \overline{\mathrm{KL}(\mathrm{softmax}(\phi) \,\|\, \mathrm{uniform})}

    ``params`` are :class:`GumbelParams`, ``state`` is empty. Evaluation takes the most probable code. The noise of a
    vector depends on the key and on its place alone, not on the other vectors nor on ``chunk_size``.

    Args:
      num_codes: size of the codebook.
      temperature: positive, of the relaxation behind the gradient; it may be a traced value, for a schedule.
      uniformity_weight: :math:`w`, in front of the divergence in nats.
      chunk_size: how many vectors at a time; by default so many that their logits take 64 MiB. No more logits are kept
        than these: of several chunks, noise and logits are made again for the derivative. With a ``chunk_size`` of all
        vectors that is not done, and several n x k matrices are kept.

    Returns:
      A quantizer; its codes in training are random.

    Gradient:
      Of values: to the codebook that of the row that was drawn; to logits that of the relaxation (straight-through
      Gumbel-softmax: biased). Of the loss: exact.

    Raises:
      ValueError: for fewer than 1 code, a temperature not above 0, a negative weight, or a ``chunk_size`` below 1; from
        its functions, for vectors of another number of features and a mask of another shape.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> quantizer = gumbel_quantizer(num_codes=16)
      >>> x = jax.random.normal(jax.random.key(0), (32, 4))
      >>> params, state = quantizer.init(jax.random.key(1), x)
      >>> quantized, _ = quantizer.apply(jax.random.key(2), params, state, x)
      >>> bool((quantized.values == params.codebook[quantized.codes]).all())
      True

    Reference:
      Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, section 2.2; Ramesh et al.,
      "Zero-Shot Text-to-Image Generation", 2021, section 2.1. https://arxiv.org/abs/1611.01144
    """
    name = "gumbel_quantizer"
    _check.at_least(name, "num_codes", num_codes, 1)
    _check.positive(name, "temperature", temperature)
    check_weights(name, uniformity_weight=uniformity_weight)
    if chunk_size is not None:
        _check.at_least(name, "chunk_size", chunk_size, 1)
    size = chunk_size or max(1, CHUNK_BYTES // (4 * num_codes))

    def vectors_of(params, x, mask=None):
        check_vectors(name, x, params.weights.shape[0], mask)
        return widen(x).reshape(-1, x.shape[-1])

    def logits_of(params, vectors):
        return jnp.matmul(vectors, params.weights, precision=lax.Precision.HIGHEST) + params.biases[None]

    def init(
        key: PRNGKeyArray, sample: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Any, Any]:
        check_vectors(name, sample, None, mask)
        num_features, dtype = sample.shape[-1], widen(sample).dtype
        key_weights, key_codebook = jax.random.split(key)
        weights = jax.random.normal(key_weights, (num_features, num_codes), dtype) / num_features**0.5
        codebook = jax.random.normal(key_codebook, (num_codes, num_features), dtype)
        return GumbelParams(weights, jnp.zeros(num_codes, dtype), codebook), ()

    def apply(
        key: PRNGKeyArray, params: Any, state: Any, x: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Quantized, Any]:
        vectors = vectors_of(params, x, mask)
        # To fold numbers in does not consume a key; to split it does.
        (noise_key,) = jax.random.split(key, 1)

        def of_chunk(rows):
            numbers, vectors = rows
            logits = logits_of(params, vectors)
            perturbed = jax.vmap(perturb)(key_of_each(noise_key, numbers), logits)
            codes, _ = first_minimum_of(-perturbed)
            relaxed = jax.nn.softmax(perturbed / jnp.asarray(temperature, logits.dtype))
            chosen = straight_through(jax.nn.one_hot(codes, num_codes, dtype=logits.dtype), relaxed)
            mixed = jnp.matmul(chosen, params.codebook, precision=lax.Precision.HIGHEST)
            log_probs = jax.nn.log_softmax(logits)
            return codes, mixed, jnp.sum(jnp.exp(log_probs) * log_probs, -1) + jnp.log(float(num_codes))

        numbers = jnp.arange(vectors.shape[0], dtype=jnp.int32)
        codes, mixed, divergence = by_chunks(of_chunk, (numbers, vectors), size)
        # The row itself has the exact bits; the product has the gradients.
        values = straight_through(lax.stop_gradient(lookup(params.codebook, codes)), mixed)
        loss = uniformity_weight * mean_over(divergence, flat_mask(x, mask))
        return quantized(x, values, codes, loss, mask), state

    def encode(params: Any, state: Any, x: Float[Array, "*n d"]) -> Int[Array, "*n"]:
        codes, _ = by_chunks(lambda rows: first_minimum_of(-logits_of(params, rows)), vectors_of(params, x), size)
        return codes.reshape(x.shape[:-1])

    def decode(params: Any, state: Any, codes: Int[Array, "*n"]) -> Float[Array, "*n e"]:
        return without_negative(lookup(params.codebook, codes), codes)

    return Quantizer(init, apply, encode, decode, num_codes)


def first_minimum_of(scores: Float[Array, "n k"]) -> tuple[Int[Array, "n"], Float[Array, "n"]]:
    """The first minimum of each row, constants."""
    scores = lax.stop_gradient(scores)
    return jnp.argmin(scores, -1).astype(jnp.int32), jnp.min(scores, -1)


class RandomProjection(NamedTuple):
    """A random map into a small space, and random directions there."""

    projection: Float[Array, "d e"]
    codebook: Float[Array, "k e"]


@claims(lambda factory: factory(num_codes=8, projected_dim=3), straight_through=False)
def random_projection_quantizer(*, num_codes: int, projected_dim: int) -> Quantizer:
    r"""The direction nearest to a random projection, both never trained: targets for self-supervised prediction.

    .. math:: i = \arg\min_k \Big\lVert \frac{E_k}{\lVert E_k \rVert} - \frac{A x}{\lVert A x \rVert} \Big\rVert

    ``params`` is empty, ``state`` a :class:`RandomProjection` that never changes. Values have ``projected_dim``
    features, and are not near x: what one uses are the codes. Its authors scale features to mean 0 and variance 1
    first.

    Args:
      num_codes: number of directions.
      projected_dim: features after the projection.

    Returns:
      A quantizer with constant values and a loss of 0.

    Gradient:
      None: values and codes are constants.

    Raises:
      ValueError: for fewer than 1 code or feature; from its functions, for vectors of another number of features and a
        mask of another shape.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> quantizer = random_projection_quantizer(num_codes=16, projected_dim=2)
      >>> x = jax.random.normal(jax.random.key(0), (32, 4))
      >>> params, state = quantizer.init(jax.random.key(1), x)
      >>> quantizer.encode(params, state, x).shape
      (32,)

    Reference:
      Chiu et al., "Self-Supervised Learning with Random-Projection Quantizer for Speech Recognition", 2022.
      https://arxiv.org/abs/2202.01855
    """
    name = "random_projection_quantizer"
    _check.at_least(name, "num_codes", num_codes, 1)
    _check.at_least(name, "projected_dim", projected_dim, 1)

    def init(
        key: PRNGKeyArray, sample: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Any, Any]:
        check_vectors(name, sample, None, mask)
        num_features, dtype = sample.shape[-1], widen(sample).dtype
        key_projection, key_codebook = jax.random.split(key)
        projection = jax.nn.initializers.xavier_uniform()(key_projection, (num_features, projected_dim), dtype)
        return (), RandomProjection(
            projection, unit(jax.random.normal(key_codebook, (num_codes, projected_dim), dtype))
        )

    def encode(params: Any, state: Any, x: Float[Array, "*n d"]) -> Int[Array, "*n"]:
        check_vectors(name, x, state.projection.shape[0])
        vectors = lax.stop_gradient(widen(x)).reshape(-1, x.shape[-1])
        projected = jnp.matmul(vectors, state.projection, precision=lax.Precision.HIGHEST)
        return nearest_code(projected, state.codebook, cosine=True).reshape(x.shape[:-1])

    def decode(params: Any, state: Any, codes: Int[Array, "*n"]) -> Float[Array, "*n e"]:
        return lax.stop_gradient(without_negative(lookup(state.codebook, codes), codes))

    def apply(
        key: PRNGKeyArray, params: Any, state: Any, x: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Quantized, Any]:
        consume(key)
        check_vectors(name, x, state.projection.shape[0], mask)
        codes = encode(params, state, x).reshape(-1)
        values = decode(params, state, codes)
        return quantized(x, values, codes, jnp.zeros((), values.dtype), mask), lax.stop_gradient(state)

    return Quantizer(init, apply, encode, decode, num_codes)
