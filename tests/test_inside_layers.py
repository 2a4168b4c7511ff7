"""Inside the layers of flax: an autoencoder of bits, trained in four ways. (The README shows the second one.)"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from jaxlab import estimators
from jaxlab.distributions import Bernoulli
from jaxlab.gradients import straight_through

NUM_BITS, DIM = 6, 12


def train(loss, parameters, num_steps=300):
    """The losses of the steps of Adam, on noisy copies of four patterns: two bits would tell which."""
    patterns = jax.random.bernoulli(jax.random.key(0), 0.5, (4, DIM)).astype(jnp.float32)
    optimizer = optax.adam(0.02)

    def step(carry, key):
        parameters, state = carry
        choice_key, noise_key, key = jax.random.split(key, 3)
        x = patterns[jax.random.randint(choice_key, (16,), 0, 4)]
        x = x + 0.05 * jax.random.normal(noise_key, x.shape)
        value, gradient = jax.value_and_grad(loss)(parameters, key, x)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a decay to an integer
            updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(parameters, updates), state), value

    keys = jax.random.split(jax.random.key(1), num_steps)
    return jax.jit(lambda carry: jax.lax.scan(step, carry, keys)[1])((parameters, optimizer.init(parameters)))


def assert_learned(losses):
    # Where the bits tell nothing, the best reconstruction is the mean of the patterns (see the last test).
    assert np.isfinite(losses).all()
    assert np.mean(losses[:10]) > 3
    assert np.mean(losses[-30:]) < 0.5


class StraightThroughBits(linen.Module):
    """Random bits whose gradient is that of their probabilities: a layer like any other."""

    num_bits: int

    @linen.compact
    def __call__(self, x):
        bits = Bernoulli(linen.Dense(self.num_bits)(x))
        return straight_through(bits.sample(self.make_rng("bits")), bits.mean())


def test_a_layer_of_straight_through_bits():
    model = linen.Sequential([StraightThroughBits(NUM_BITS), linen.Dense(32), linen.relu, linen.Dense(DIM)])

    def loss(parameters, key, x):
        return jnp.mean(jnp.sum((model.apply(parameters, x, rngs={"bits": key}) - x) ** 2, -1))

    keys = dict(zip(("params", "bits"), jax.random.split(jax.random.key(2)), strict=True))
    assert_learned(train(loss, model.init(keys, jnp.zeros((1, DIM)))))


def test_an_estimator_between_two_modules():
    encoder = linen.Dense(NUM_BITS)
    decoder = linen.Sequential([linen.Dense(32), linen.relu, linen.Dense(DIM)])

    def loss_of_one(parameters, key, x):
        def cost(bits):
            return jnp.sum((decoder.apply(parameters["decoder"], bits) - x) ** 2)

        bits = Bernoulli(encoder.apply(parameters["encoder"], x))
        return estimators.leave_one_out(key, bits, cost)

    def loss(parameters, key, x):
        return jax.vmap(loss_of_one, (None, 0, 0))(parameters, jax.random.split(key, len(x)), x).mean()

    parameters = {
        "encoder": encoder.init(jax.random.key(2), jnp.zeros(DIM)),
        "decoder": decoder.init(jax.random.key(3), jnp.zeros(NUM_BITS)),
    }
    assert_learned(train(loss, parameters))


class Autoencoder(linen.Module):
    """The loss of one example, with the estimator inside: flax lets a module into a vmap once it is unbound."""

    def setup(self):
        self.encoder = linen.Dense(NUM_BITS)
        self.decoder = linen.Sequential([linen.Dense(32), linen.relu, linen.Dense(DIM)])

    def __call__(self, x):
        bits = Bernoulli(self.encoder(x))
        if self.is_initializing():
            self.decoder(bits.mean())
        decoder, variables = self.decoder.unbind()

        def cost(bits):
            return jnp.sum((decoder.apply(variables, bits) - x) ** 2)

        return estimators.leave_one_out(self.make_rng("bits"), bits, cost)


def test_an_estimator_inside_a_module():
    model = Autoencoder()

    def loss(parameters, key, x):
        def one(key, x):
            return model.apply(parameters, x, rngs={"bits": key})

        return jax.vmap(one)(jax.random.split(key, len(x)), x).mean()

    keys = dict(zip(("params", "bits"), jax.random.split(jax.random.key(2)), strict=True))
    assert_learned(train(loss, model.init(keys, jnp.zeros(DIM))))


class NnxAutoencoder(nnx.Module):
    """The same in nnx, whose modules may be read inside a vmap as they are."""

    def __init__(self, rngs):
        self.encoder = nnx.Linear(DIM, NUM_BITS, rngs=rngs)
        self.hidden = nnx.Linear(NUM_BITS, 32, rngs=rngs)
        self.decoder = nnx.Linear(32, DIM, rngs=rngs)

    def __call__(self, key, x):
        def cost(bits):
            return jnp.sum((self.decoder(nnx.relu(self.hidden(bits))) - x) ** 2)

        return estimators.leave_one_out(key, Bernoulli(self.encoder(x)), cost)


def test_an_estimator_inside_an_nnx_module():
    graph, parameters = nnx.split(NnxAutoencoder(nnx.Rngs(0)))

    def loss(parameters, key, x):
        model = nnx.merge(graph, parameters)
        return jax.vmap(model)(jax.random.split(key, len(x)), x).mean()

    assert_learned(train(loss, parameters))


def test_bits_that_tell_nothing_leave_the_variance_of_the_patterns():
    decoder = linen.Sequential([linen.Dense(32), linen.relu, linen.Dense(DIM)])

    def loss(parameters, key, x):
        bits = Bernoulli(jnp.zeros((len(x), NUM_BITS))).sample(key)
        return jnp.mean(jnp.sum((decoder.apply(parameters, bits) - x) ** 2, -1))

    losses = train(loss, decoder.init(jax.random.key(3), jnp.zeros(NUM_BITS)))
    assert np.mean(losses[-30:]) > 2
