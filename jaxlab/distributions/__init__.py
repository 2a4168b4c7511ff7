"""Random variables as NamedTuples: the leaves are parameters, the methods are capabilities.

One value is one event: ``Bernoulli(logits)`` with logits of shape [d] draws d independent bits, with one scalar
``log_prob``. A batch is ``jax.vmap``. Every draw of ``sample`` is a constant to ``jax.grad``; a draw with a path is
``reparameterize`` (continuous) or ``soften(perturb(key))`` (relaxed discrete).

>>> import jax, jax.numpy as jnp
>>> from jaxlab.distributions import Bernoulli
>>> batch = Bernoulli(jnp.zeros((8, 3)))  # eight vectors of three bits
>>> keys = jax.random.split(jax.random.key(0), 8)
>>> jax.vmap(lambda key, bits: bits.log_prob(bits.sample(key)))(keys, batch).shape
(8,)
"""

from jaxlab.distributions.adapters import (
    Adapted,
    AdaptedEnumerable,
    AdaptedReparameterizable,
    from_distrax,
    from_numpyro,
)
from jaxlab.distributions.bits import Bernoulli
from jaxlab.distributions.capabilities import (
    Antithetic,
    Conditionable,
    Enumerable,
    EvenlyConditionable,
    Flippable,
    MeanValued,
    Relaxable,
    Reparameterizable,
    Scored,
    ScoredPath,
    WeakDerivative,
    WeaklyDifferentiable,
)
from jaxlab.distributions.categories import Categorical
from jaxlab.distributions.continuous import Exponential, Gumbel, Laplace, Logistic, MultivariateNormal, Normal
from jaxlab.distributions.counts import Poisson
from jaxlab.distributions.gamma import Beta, Dirichlet, Gamma
from jaxlab.distributions.permutations import PlackettLuce

__all__ = [
    "Adapted",
    "AdaptedEnumerable",
    "AdaptedReparameterizable",
    "Antithetic",
    "Bernoulli",
    "Beta",
    "Categorical",
    "Conditionable",
    "Dirichlet",
    "Enumerable",
    "EvenlyConditionable",
    "Exponential",
    "Flippable",
    "Gamma",
    "Gumbel",
    "Laplace",
    "Logistic",
    "MeanValued",
    "MultivariateNormal",
    "Normal",
    "PlackettLuce",
    "Poisson",
    "Relaxable",
    "Reparameterizable",
    "Scored",
    "ScoredPath",
    "WeakDerivative",
    "WeaklyDifferentiable",
    "from_distrax",
    "from_numpyro",
]
