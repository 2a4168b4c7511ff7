"""Monte Carlo expectations whose ``jax.grad`` is the named estimator.

``estimators.<name>(key, dist, f, ...)`` has two laws. *Value*: it is a Monte Carlo estimate of the expectation of ``f``
over ``dist``. *Gradient*: ``jax.grad`` of it is the estimator it is named after, with respect to the parameters of
``dist`` and to everything ``f`` closes over, each exactly once. ``f`` maps one draw to one scalar; a minibatch is
``jax.vmap`` over keys and examples, so that each example is credited with its own cost alone. An ``f`` that needs
randomness of its own closes over a key; it is the same for all draws of one call.

What each one claims stands in its row of ``ESTIMATORS``; ``python -m benchmarks.gradient_variance`` measures it.

>>> import jax, jax.numpy as jnp
>>> from jaxlab import estimators
>>> from jaxlab.distributions import Bernoulli
>>> def loss(logits, key, target):  # one example
...     return estimators.leave_one_out(key, Bernoulli(logits), lambda b: jnp.sum((b - target) ** 2))
>>> def batch_loss(logits, key, targets):
...     keys = jax.random.split(key, len(targets))
...     return jax.vmap(loss)(logits, keys, targets).mean()
>>> jax.grad(batch_loss)(jnp.zeros((8, 3)), jax.random.key(0), jnp.full((8, 3), 0.45)).shape
(8, 3)
"""

# The order of these lines is that of the tables.
# isort: off
from jaxlab.estimators.contract import BOUNDS, ESTIMATORS, Estimator
from jaxlab.estimators.enumeration import exact
from jaxlab.estimators.score import leave_one_out, reinforce, reinforce_moving_average
from jaxlab.estimators.learned_baseline import LearningSignal, learning_signal, nvil
from jaxlab.estimators.control import double_control_variate, muprop
from jaxlab.estimators.stein import discrete_stein
from jaxlab.estimators.relaxed_control import rebar, relax
from jaxlab.estimators.coupled import arm, arms, disarm
from jaxlab.estimators.coupled_categories import arsm, disarm_stick_breaking, disarm_tree
from jaxlab.estimators.antithetic_categories import carms
from jaxlab.estimators.without_replacement import gumbel_top_k_importance, sum_and_sample, unordered_set
from jaxlab.estimators.local import local_expectation
from jaxlab.estimators.measure_valued import measure_valued
from jaxlab.estimators.pathwise import reparameterized
from jaxlab.estimators.pathwise_control import reparameterized_antithetic, reparameterized_delta
from jaxlab.estimators.relaxed import gumbel_softmax, straight_through_gumbel, straight_through_mean
from jaxlab.estimators.rounded import decoupled_gumbel_softmax, gumbel_rao, reinmax
from jaxlab.estimators.bounds import dreg, iwae, renyi, stl
from jaxlab.estimators.score_bounds import local_disarm, vimco
# isort: on

__all__ = [
    "BOUNDS",
    "ESTIMATORS",
    "Estimator",
    "LearningSignal",
    "arm",
    "arms",
    "arsm",
    "carms",
    "decoupled_gumbel_softmax",
    "disarm",
    "disarm_stick_breaking",
    "disarm_tree",
    "discrete_stein",
    "double_control_variate",
    "dreg",
    "exact",
    "gumbel_rao",
    "gumbel_softmax",
    "gumbel_top_k_importance",
    "iwae",
    "learning_signal",
    "leave_one_out",
    "local_disarm",
    "local_expectation",
    "measure_valued",
    "muprop",
    "nvil",
    "rebar",
    "reinforce",
    "reinforce_moving_average",
    "reinmax",
    "relax",
    "renyi",
    "reparameterized",
    "reparameterized_antithetic",
    "reparameterized_delta",
    "stl",
    "straight_through_gumbel",
    "straight_through_mean",
    "sum_and_sample",
    "unordered_set",
    "vimco",
]
