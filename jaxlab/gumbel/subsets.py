"""Draws without replacement, as the top of the perturbed logits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab.gumbel.noise import finite_above, perturb

__all__ = ["OrderedSubset", "gumbel_top_k"]


class OrderedSubset(NamedTuple):
    """Categories drawn one after another without replacement, the first one first."""

    codes: Int[Array, "*batch n"]
    log_probs: Float[Array, "*batch n"]  # of each draw given those before it; their sum is the ordered draw's
    perturbed: Float[Array, "*batch n"]  # perturbed logits, descending


@jit(static=("num_samples",))
def gumbel_top_k(key: PRNGKeyArray, logits: Float[Array, "*batch k"], *, num_samples: int) -> OrderedSubset:
    r"""Draws ``num_samples`` different categories, as the top of the perturbed logits.

    .. math:: c_1, \dots, c_n = \mathrm{arg\,top}_n (\phi + G), \qquad
              \log p(c_j \mid c_{<j}) = \phi_{c_j} - \log \sum_{i \notin \{c_1, \dots, c_{j-1}\}} e^{\phi_i}

    the law of drawing from :math:`\mathrm{softmax}(\phi)` n times without replacement (Plackett-Luce).

    Args:
      key: consumed.
      logits: unnormalised log-probabilities, in nats, along the last axis.
      num_samples: how many categories, 1 ... k.

    Returns:
      ``codes`` in 0 ... k - 1, all different; ``log_probs`` of each given the earlier ones, at most 0, in the
      dtype of ``logits`` (``-inf`` once the possible categories are used up); ``perturbed`` logits in float32.

    Gradient:
      ``log_probs`` carry their own with ``codes`` held fixed (for score-function estimators, unbiased); ``perturbed``
      the identity at the codes.

    Raises:
      ValueError: if ``num_samples`` is below 1 or above k.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> subset = gumbel_top_k(jax.random.key(0), jnp.log(jnp.array([0.5, 0.3, 0.2])), num_samples=3)
      >>> sorted(subset.codes.tolist())
      [0, 1, 2]
      >>> float(subset.log_probs[-1])  # the last one is certain
      0.0

    Reference:
      Kool, van Hoof, Welling, "Stochastic Beams and Where to Find Them", 2019 (the Gumbel-top-k trick).
      https://arxiv.org/abs/1903.06059
    """
    _check.at_least("gumbel_top_k", "num_samples", num_samples, 1)
    num_categories = logits.shape[-1]
    if num_samples > num_categories:
        raise ValueError(
            f"gumbel_top_k: num_samples must be at most the number of categories, {num_categories}; got {num_samples}"
        )
    perturbed, codes = lax.top_k(perturb(key, logits), num_samples)
    wide = finite_above(logits)
    lowest = jnp.finfo(wide.dtype).min / 2  # in place of -inf, whose sums have NaN derivatives
    bounded = jnp.maximum(wide, lowest)
    drawn = jnp.take_along_axis(bounded, codes, -1)
    never_drawn = jnp.put_along_axis(jnp.ones(wide.shape, bool), codes, False, axis=-1, inplace=False)
    rest = jax.nn.logsumexp(jnp.where(never_drawn, bounded, lowest), -1, keepdims=True)
    # What is left at draw j is what never comes plus what comes at j or later: a sum from the end, all terms positive.
    left = lax.cumlogsumexp(jnp.concatenate([drawn, rest], -1), axis=drawn.ndim - 1, reverse=True)[..., :-1]
    log_probs = jnp.where(drawn > lowest, drawn - left, -jnp.inf)
    return OrderedSubset(codes, log_probs.astype(logits.dtype), perturbed)
