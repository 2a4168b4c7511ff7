"""A variational auto-encoder with ten bits: few enough latents for its exact gradient, a network on either side."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab import estimators
from jaxlab.distributions import Bernoulli

NUM_LATENTS = 10
HIDDEN_DIM = 64
BATCH_SIZE = 100
LEARNING_RATE = 3e-3
#: For what runs only a short while and is not timed: compiling takes a third of the time, the code is hardly slower.
COMPILE_FAST: dict[str, Any] = {"xla_backend_optimization_level": 1}


class Layer(NamedTuple):
    """An affine map."""

    weights: Float[Array, "inputs outputs"]
    biases: Float[Array, "outputs"]


class Network(NamedTuple):
    """One hidden layer of leaky rectifiers (slope 0.3, as in the published experiments with 200 latents)."""

    hidden: Layer
    output: Layer


class Autoencoder(NamedTuple):
    """Encoder, from pixels to the logits of the latent bits; decoder, from these bits to the logits of pixels."""

    encoder: Network
    decoder: Network


def initial_network(key: PRNGKeyArray, input_dim: int, output_dim: int) -> Network:
    """Random weights (Glorot), no biases."""
    initial = jax.nn.initializers.glorot_normal()
    hidden_key, output_key = jax.random.split(key)
    return Network(
        Layer(initial(hidden_key, (input_dim, HIDDEN_DIM)), jnp.zeros(HIDDEN_DIM)),
        Layer(initial(output_key, (HIDDEN_DIM, output_dim)), jnp.zeros(output_dim)),
    )


def initial_autoencoder(key: PRNGKeyArray, num_pixels: int) -> Autoencoder:
    """An untrained model for images of so many pixels."""
    encoder_key, decoder_key = jax.random.split(key)
    return Autoencoder(
        initial_network(encoder_key, num_pixels, NUM_LATENTS), initial_network(decoder_key, NUM_LATENTS, num_pixels)
    )


def apply(network: Network, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
    """The network's output for one input of zeros and ones (or of what lies between)."""
    hidden = jax.nn.leaky_relu((2 * x - 1) @ network.hidden.weights + network.hidden.biases, 0.3)
    return hidden @ network.output.weights + network.output.biases


def negative_elbo(
    bits: Float[Array, "latents"], posterior: Bernoulli, decoder: Network, image: Float[Array, "pixels"]
) -> Float[Array, ""]:
    r"""The integrand of the negative evidence lower bound in nats: :math:`\log q(b|x) - \log p(b) - \log p(x|b)`.

    It depends on the encoder also directly, through ``posterior``. The prior of each bit is 1/2.
    """
    log_prior = -NUM_LATENTS * math.log(2)
    log_likelihood = Bernoulli(apply(decoder, bits)).log_prob(image)
    return posterior.log_prob(bits) - log_prior - log_likelihood


class Batch(NamedTuple):
    """What the loss of the encoder depends on besides the encoder."""

    decoder: Network
    images: Float[Array, "b pixels"]


def loss(key: PRNGKeyArray, encoder: Network, batch: Batch, estimate: Any) -> Any:
    """The mean over a minibatch of what ``estimate`` makes of each image's negative bound."""

    def of_one_image(key: PRNGKeyArray, image: Float[Array, "pixels"]) -> Any:
        posterior = Bernoulli(apply(encoder, image))
        return estimate(key, posterior, lambda bits: negative_elbo(bits, posterior, batch.decoder, image))

    per_image = jax.vmap(of_one_image)(jax.random.split(key, len(batch.images)), batch.images)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, 0), per_image)


class Training(NamedTuple):
    """What training goes on from."""

    model: Autoencoder
    optimizer_state: Any


def optimizer() -> optax.GradientTransformation:
    """Adam, for both networks."""
    return optax.adam(LEARNING_RATE)


@functools.partial(jax.jit, compiler_options=COMPILE_FAST)
def train(keys: PRNGKeyArray, training: Training, images: Float[Array, "n pixels"]) -> Training:
    """Takes as many steps as there are keys; the encoder's gradient is ``leave_one_out`` with four samples."""
    estimate = functools.partial(estimators.leave_one_out, num_samples=4)

    def step(training: Training, key: PRNGKeyArray) -> tuple[Training, None]:
        model, optimizer_state = training
        choice_key, loss_key = jax.random.split(key)
        chosen = images[jax.random.randint(choice_key, (BATCH_SIZE,), 0, len(images))]
        gradient = jax.grad(lambda m: loss(loss_key, m.encoder, Batch(m.decoder, chosen), estimate))(model)
        with jax.numpy_dtype_promotion("standard"):  # which optax itself relies on
            updates, optimizer_state = optimizer().update(gradient, optimizer_state)
        return Training(jax.tree.map(jnp.add, model, updates), optimizer_state), None

    return lax.scan(step, training, keys)[0]


def stages(
    key: PRNGKeyArray, images: Float[Array, "n pixels"], *, num_calls: int, steps_a_call: int
) -> list[Autoencoder]:
    """The model at its start, after ``steps_a_call`` steps, and after ``num_calls`` times as many."""
    initial_key, training_key = jax.random.split(key)
    model = initial_autoencoder(initial_key, images.shape[1])
    training = Training(model, optimizer().init(model))
    models = [model]
    for keys in jax.random.split(training_key, (num_calls, steps_a_call)):
        training = train(keys, training, images)
        models.append(training.model)
    return [models[0], models[1], models[-1]]


def binarised(images: np.ndarray, maximal_num: int = 10_000) -> np.ndarray:
    """Black and white pixels, one row an image; the first so many images."""
    return (images[:maximal_num].reshape(min(len(images), maximal_num), -1) >= 0.5).astype(np.float32)
