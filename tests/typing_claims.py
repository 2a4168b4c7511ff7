"""What pyright must refuse: an ignore below that is not needed fails the type check."""

import jax
import jax.numpy as jnp

from jaxlab import estimators
from jaxlab.distributions import Bernoulli, Normal, Poisson

key = jax.random.key(0)
bits = Bernoulli(jnp.zeros(3))
normal = Normal(jnp.zeros(3), jnp.ones(3))
counts = Poisson(jnp.ones(3))

# Capabilities that are there.
estimators.reinforce(key, bits, jnp.sum)
estimators.exact(key, bits, jnp.sum)
estimators.gumbel_softmax(key, bits, jnp.sum, temperature=0.5)
estimators.reparameterized(key, normal, jnp.sum)
estimators.leave_one_out(key, counts, jnp.sum)

# Capabilities that are not.
estimators.reparameterized(key, bits, jnp.sum)  # pyright: ignore[reportArgumentType]
estimators.gumbel_softmax(key, normal, jnp.sum)  # pyright: ignore[reportArgumentType]
estimators.gumbel_softmax(key, counts, jnp.sum)  # pyright: ignore[reportArgumentType]
estimators.exact(key, counts, jnp.sum)  # pyright: ignore[reportArgumentType]

# Signatures survive compilation and the table of estimators.
estimators.reinforce(key, bits, jnp.sum, num_sample=2)  # pyright: ignore[reportCallIssue]
bits.soften(jnp.zeros(3), temperatur=0.5)  # pyright: ignore[reportCallIssue]
