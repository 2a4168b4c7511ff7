"""How fast the estimators are on the decoder of the published protocol: 200 latents, batch 100."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import rich

from benchmarks.comparison import Comparison
from jaxlab import estimators
from jaxlab.distributions import Bernoulli, Categorical, Normal

BATCH, LATENTS, HIDDEN, PIXELS = 100, 200, 200, 784
#: Beside one ``reinforce``: estimator, options, and what the ratio should be at most.
BESIDE_REINFORCE: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("leave_one_out", {"num_samples": 2}, 1.4),
    ("disarm", {"num_samples": 2}, 1.2),
    ("double_control_variate", {"num_samples": 2, "scale": -0.01}, 1.8),
    ("rebar", {}, 2.1),
    ("gumbel_softmax", {}, 1.0),
    ("straight_through_gumbel", {}, 1.0),
    ("gumbel_rao", {"num_relaxations": 10}, 1.1),
    ("reinmax", {}, 1.05),
)


def initial_decoder(key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Weights of the nonlinear decoder 200-200-200-784 of the published protocol."""
    sizes = [LATENTS, HIDDEN, HIDDEN, PIXELS]
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (rows, columns)) / rows**0.5, jnp.zeros(columns))
        for k, rows, columns in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def decode(decoder: list[tuple[jax.Array, jax.Array]], latent: jax.Array) -> jax.Array:
    """Logits of the pixels, for one latent vector or for a batch of them."""
    hidden = latent
    for weights, biases in decoder[:-1]:
        hidden = jax.nn.leaky_relu(hidden @ weights + biases, 0.3)
    weights, biases = decoder[-1]
    return hidden @ weights + biases


def cost(decoder: list[tuple[jax.Array, jax.Array]], latent: jax.Array, image: jax.Array) -> jax.Array:
    """Negative log-likelihood in nats of an image's bits, summed over the last axis."""
    logits = decode(decoder, latent)
    return jnp.sum(jax.nn.softplus(logits) - image * logits, -1)


def data(seed: int = 0) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
    """A key, a decoder, posterior logits [b, latents] and images [b, pixels]."""
    key, decoder_key, logits_key, images_key = jax.random.split(jax.random.key(seed), 4)
    logits = jax.random.normal(logits_key, (BATCH, LATENTS))
    images = jax.random.bernoulli(images_key, 0.3, (BATCH, PIXELS)).astype(jnp.float32)
    return key, initial_decoder(decoder_key), logits, images


def ours_by_vmap(estimate: Callable, make: Callable, **options: Any) -> Callable:
    """The value and gradient of an estimator of ours, a minibatch by ``jax.vmap``."""

    def loss(parameters, key, images):
        decoder, logits = parameters
        keys = jax.random.split(key, BATCH)

        def one(key, logits, image):
            return estimate(key, make(logits), lambda latent: cost(decoder, latent, image), **options)

        return jnp.mean(jax.vmap(one)(keys, logits, images))

    return jax.jit(jax.value_and_grad(loss))


def gradient_to_logits(estimate: Callable, **options: Any) -> Callable:
    """The value and the gradient for the logits of a minibatch of bits."""

    def loss(logits, decoder, key, images):
        def one(key, logits, image):
            return estimate(key, Bernoulli(logits), lambda latent: cost(decoder, latent, image), **options)

        return jnp.mean(jax.vmap(one)(jax.random.split(key, BATCH), logits, images))

    compiled = jax.jit(jax.value_and_grad(loss))
    return lambda parameters, key, images: compiled(parameters[1], parameters[0], key, images)


def score_by_hand(num_samples: int, leave_one_out: bool) -> Callable:
    """REINFORCE or leave-one-out on a batch, as one writes it in a training script."""

    def loss(parameters, key, images):
        decoder, logits = parameters
        shape = (num_samples, *logits.shape)
        bits = (jax.random.uniform(key, shape) < jax.nn.sigmoid(logits)).astype(jnp.float32)
        log_prob = jnp.sum(bits * logits - jax.nn.softplus(logits), -1)
        costs = cost(decoder, bits, images)
        fixed = jax.lax.stop_gradient(costs)
        if leave_one_out:
            fixed = fixed - (jnp.sum(fixed, 0) - fixed) / (num_samples - 1)
        # The value is the cost; the score term has none.
        return jnp.mean(costs + fixed * (log_prob - jax.lax.stop_gradient(log_prob)))

    return jax.jit(jax.value_and_grad(loss))


def reparameterized_by_hand() -> Callable:
    """The pathwise gradient of a Gaussian on a batch, as one writes it in a training script."""

    def loss(parameters, key, images):
        decoder, logits = parameters
        latent = logits + 0.5 * jax.random.normal(key, logits.shape)
        return jnp.mean(cost(decoder, latent, images))

    return jax.jit(jax.value_and_grad(loss))


def gumbel_softmax_by_hand(temperature: float) -> Callable:
    """The binary Concrete relaxation on a batch, as one writes it in a training script."""

    def loss(parameters, key, images):
        decoder, logits = parameters
        noise = jax.random.logistic(key, logits.shape)
        return jnp.mean(cost(decoder, jax.nn.sigmoid((logits + noise) / temperature), images))

    return jax.jit(jax.value_and_grad(loss))


def lines() -> list[Comparison]:
    """Ours beside hand-written JAX, and the estimators beside each other."""
    key, decoder, logits, images = data()
    arguments = ((decoder, logits), key, images)

    def compare(name: str, ours: Callable, other: Callable, aim: float) -> Comparison:
        return Comparison(name, lambda: ours(*arguments), lambda: other(*arguments), aim)

    one_sample = score_by_hand(1, leave_one_out=False)
    reinforce = ours_by_vmap(estimators.reinforce, Bernoulli)
    pairs = ours_by_vmap(estimators.leave_one_out, Bernoulli, num_samples=2)
    pathwise = ours_by_vmap(estimators.reparameterized, lambda loc: Normal(loc, jnp.full_like(loc, 0.5)))
    relaxed = ours_by_vmap(estimators.gumbel_softmax, Bernoulli, temperature=0.5)
    made = [
        compare("reinforce / by hand", reinforce, one_sample, 1.1),
        compare("reparameterized / by hand", pathwise, reparameterized_by_hand(), 1.1),
        compare("leave_one_out, 2 samples / by hand", pairs, score_by_hand(2, leave_one_out=True), 1.1),
        compare("leave_one_out, 2 samples / reinforce by hand", pairs, one_sample, 2.2),
        compare("gumbel_softmax / by hand", relaxed, gumbel_softmax_by_hand(0.5), 1.1),
    ]
    # To the latents' logits alone it is the estimator that is timed; with the decoder's weights, a training step's.
    plain = gradient_to_logits(estimators.reinforce)
    for name, options, aim in BESIDE_REINFORCE:
        estimate = getattr(estimators, name)
        label = ", ".join([name, *(f"{option} {value}" for option, value in options.items())])
        made.append(
            compare(f"{label} / reinforce (to the logits)", gradient_to_logits(estimate, **options), plain, aim)
        )
        everything = ours_by_vmap(estimate, Bernoulli, **options)
        made.append(compare(f"{label} / reinforce (to the weights too)", everything, reinforce, aim))
    return made


def distrax_comparison() -> Comparison:
    """Straight-through gradients of one-hot draws: ours beside distrax's wrapper."""
    import distrax

    key = jax.random.key(0)
    logits = jax.random.normal(jax.random.key(1), (BATCH, 20, 10))
    weights = jax.random.normal(jax.random.key(2), (20, 10))
    straight_through_type: Any = distrax.straight_through_wrapper(distrax.OneHotCategorical)

    def theirs(logits, key):
        draws = straight_through_type(logits=logits).sample(seed=key)
        return jnp.mean(jnp.sum(draws * weights, (-1, -2)) ** 2)

    def ours(logits, key):
        def one(key, logits):
            category = Categorical(logits)
            return estimators.straight_through_mean(key, category, lambda draw: jnp.sum(draw * weights) ** 2)

        return jnp.mean(jax.vmap(one)(jax.random.split(key, BATCH), logits))

    ours_compiled, theirs_compiled = jax.jit(jax.grad(ours)), jax.jit(jax.grad(theirs))
    name = "straight_through_mean / distrax straight_through_wrapper"
    return Comparison(name, lambda: ours_compiled(logits, key), lambda: theirs_compiled(logits, key), 1.0)


def numpyro_comparison() -> Comparison:
    """The gradient of a Bernoulli VAE's bound: ours beside numpyro's TraceGraph_ELBO."""
    import numpyro
    from numpyro import distributions
    from numpyro.infer import TraceGraph_ELBO

    key, decoder, logits, images = data()

    def model(parameters):
        with numpyro.plate("examples", BATCH):  # each example is credited with its own cost, as ours is
            prior = distributions.Bernoulli(logits=jnp.zeros((BATCH, LATENTS)))
            latent: Any = numpyro.sample("latent", prior.to_event(1))
            pixels = decode(parameters[0], latent.astype(jnp.float32))
            numpyro.sample("image", distributions.Bernoulli(logits=pixels).to_event(1), obs=images)

    def guide(parameters):
        with numpyro.plate("examples", BATCH):
            numpyro.sample("latent", distributions.Bernoulli(logits=parameters[1]).to_event(1))

    def theirs(parameters, key):
        bound = TraceGraph_ELBO()
        return bound.loss(key, {}, lambda: model(parameters), lambda: guide(parameters)) / BATCH

    def ours(parameters, key):
        decoder, logits = parameters

        def one(key, logits, image):
            bits = Bernoulli(logits)

            def negative_bound(latent):
                log_prior = -LATENTS * jnp.log(2.0)
                return cost(decoder, latent, image) + bits.log_prob(latent) - log_prior

            return estimators.reinforce(key, bits, negative_bound)

        return jnp.mean(jax.vmap(one)(jax.random.split(key, BATCH), logits, images))

    parameters = (decoder, logits)
    ours_compiled, theirs_compiled = jax.jit(jax.value_and_grad(ours)), jax.jit(jax.value_and_grad(theirs))
    name = "reinforce / numpyro TraceGraph_ELBO"
    return Comparison(name, lambda: ours_compiled(parameters, key), lambda: theirs_compiled(parameters, key), 1.1)


def peer_lines() -> list[Comparison]:
    """Ours beside other libraries, as far as they are installed."""
    made = []
    for make in (distrax_comparison, numpyro_comparison):
        try:
            made.append(make())
        except ImportError as error:
            rich.print(f"[yellow]left out: {make.__name__}: {error}")
    return made
