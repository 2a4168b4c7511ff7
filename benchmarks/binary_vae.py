"""The variational auto-encoder of the published comparisons: 200 bits, trained on images binarised anew each epoch.

Everything here is one compiled function for many seeds at once: a block of training steps, and what is measured of a
model whose parameters are frozen.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from benchmarks.trained_estimators import TRAINED, num_samples_of
from jaxlab.distributions import Bernoulli

Depth = Literal["nonlinear", "linear"]
ProtocolName = Literal["rodeo", "disarm"]

NUM_LATENTS = 200
HIDDEN_DIM = 200
SLOPE = 0.3  # of the leaky rectifiers
ADAM_EPSILON = 1e-7  # that of Keras, with which the published numbers were made

Network = list[tuple[Float[Array, "inputs outputs"], Float[Array, "outputs"]]]


class Autoencoder(NamedTuple):
    """Encoder, from pixels to logits of 200 bits; decoder, from bits to logits of pixels; logits of the prior."""

    encoder: Network
    decoder: Network
    prior: Float[Array, "latents"]


class Training(NamedTuple):
    """What training goes on from."""

    model: Autoencoder
    optimizer: Any
    tunables: Any  # of the estimator's control variate
    tunables_optimizer: Any


@dataclass(frozen=True)
class Protocol:
    """How a publication trained.

    RODEO: Shi et al., 2022, https://arxiv.org/abs/2202.09497. DisARM: Dong et al., 2020,
    https://arxiv.org/abs/2006.10680.
    """

    batch_size: int
    learning_rate: float  # of Adam
    prior_learning_rate: float  # of SGD; 0: each bit of the prior stays a fair coin
    centred: bool  # pixels enter as their distance to the mean image, bits as -1 and 1; biases begin at the mean image


PROTOCOLS: dict[str, Protocol] = {
    "rodeo": Protocol(batch_size=100, learning_rate=3e-4, prior_learning_rate=0, centred=False),
    "disarm": Protocol(batch_size=50, learning_rate=1e-4, prior_learning_rate=1e-2, centred=True),
}


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how: all that a compiled step depends on but the shape of the images."""

    protocol: ProtocolName
    depth: Depth
    estimator: str
    evaluations: int

    @property
    def settings(self) -> Protocol:
        """The settings of the protocol."""
        return PROTOCOLS[self.protocol]


class Data(NamedTuple):
    """Images in bytes, one row each, and the mean of the training images in [0, 1]."""

    train: UInt8[Array, "n pixels"]
    validation: UInt8[Array, "m pixels"]
    test: UInt8[Array, "k pixels"]
    mean: Float[Array, "pixels"]


def initial_network(key: PRNGKeyArray, sizes: list[int]) -> Network:
    """Random weights (Glorot's uniform law, the default of Keras), no biases."""
    glorot = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(key, len(sizes) - 1)
    return [(glorot(k, (a, b)), jnp.zeros(b)) for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)]


def initial_model(key: PRNGKeyArray, recipe: Recipe, mean: Float[Array, "pixels"]) -> Autoencoder:
    """An untrained model for images with such a mean."""
    encoder_key, decoder_key = jax.random.split(key)
    hidden = [HIDDEN_DIM, HIDDEN_DIM] if recipe.depth == "nonlinear" else []
    encoder = initial_network(encoder_key, [len(mean), *hidden, NUM_LATENTS])
    decoder = initial_network(decoder_key, [NUM_LATENTS, *hidden, len(mean)])
    if recipe.settings.centred:
        weights, _ = decoder[-1]
        decoder[-1] = (weights, jax.scipy.special.logit(jnp.clip(mean, 0.001, 0.999)))
    return Autoencoder(encoder, decoder, jnp.zeros(NUM_LATENTS))


def apply(network: Network, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
    """Affine maps with leaky rectifiers between them."""
    for weights, biases in network[:-1]:
        x = jax.nn.leaky_relu(x @ weights + biases, SLOPE)
    weights, biases = network[-1]
    return x @ weights + biases


def encode(
    model: Autoencoder, protocol: Protocol, image: Float[Array, "pixels"], mean: Float[Array, "pixels"]
) -> Bernoulli:
    """The law of the bits given an image of zeros and ones."""
    return Bernoulli(apply(model.encoder, image - mean if protocol.centred else image))


def log_joint(
    model: Autoencoder, protocol: Protocol, bits: Float[Array, "latents"], image: Float[Array, "pixels"]
) -> Float[Array, ""]:
    r"""The joint log-probability :math:`\log p(x|b) + \log p(b)` in nats.

    Between bits of 0 and 1, where relaxations look, both terms are what their formulas give.
    """
    logits = apply(model.decoder, 2 * bits - 1 if protocol.centred else bits)
    log_likelihood = jnp.sum(image * logits - jax.nn.softplus(logits))
    if protocol.prior_learning_rate == 0:
        return log_likelihood - NUM_LATENTS * math.log(2)
    return log_likelihood + Bernoulli(model.prior).log_prob(bits)


def binarised(key: PRNGKeyArray, images: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Pixels that are 1 with the probability of their brightness, to within 1 / 65536; black and white stay so."""
    uniform = jax.random.bits(key, images.shape, jnp.uint16).astype(jnp.uint32)
    return (uniform * 255 < images.astype(jnp.uint32) << 16).astype(jnp.float32)


def loss(
    model: Autoencoder,
    tunables: Any,
    key: PRNGKeyArray,
    recipe: Recipe,
    images: Float[Array, "b pixels"],
    mean: Float[Array, "pixels"],
) -> Float[Array, ""]:
    r"""The mean negative evidence lower bound of a minibatch, whose gradient is the estimator's.

    The integrand is :math:`\log q(b|x) - \log p(b) - \log p(x|b)`: it depends on the encoder through the draw, which is
    the estimator's part, and through :math:`\log q` itself.
    """
    trained = TRAINED[recipe.estimator]
    num_samples = num_samples_of(recipe.estimator, recipe.evaluations)

    def of_one_image(key: PRNGKeyArray, image: Float[Array, "pixels"]) -> Float[Array, ""]:
        posterior = encode(model, recipe.settings, image, mean)

        def negative_elbo(bits: Float[Array, "latents"]) -> Float[Array, ""]:
            return posterior.log_prob(bits) - log_joint(model, recipe.settings, bits, image)

        return trained.estimate(key, posterior, negative_elbo, num_samples, tunables)

    return jnp.mean(jax.vmap(of_one_image)(jax.random.split(key, len(images)), images))


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Adam for both networks; for the prior plain gradient descent, or nothing."""
    settings = recipe.settings
    prior = optax.sgd(settings.prior_learning_rate) if settings.prior_learning_rate else optax.set_to_zero()
    return optax.partition(
        {"networks": optax.adam(settings.learning_rate, eps=ADAM_EPSILON), "prior": prior},
        Autoencoder("networks", "networks", "prior"),  # pyright: ignore[reportArgumentType]
    )


def tunables_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """What steps the control variate's parameters on the gradient of the squared gradient."""
    return TRAINED[recipe.estimator].optimizer(recipe.settings.learning_rate)


@functools.partial(jax.jit, static_argnames="recipe")
@functools.partial(jax.vmap, in_axes=(0, None, None))
def initial_training(key: PRNGKeyArray, recipe: Recipe, mean: Float[Array, "pixels"]) -> Training:
    """The state before the first step, for each of the keys."""
    model_key, tunables_key = jax.random.split(jax.random.fold_in(key, 2))
    model = initial_model(model_key, recipe, mean)
    tunables = TRAINED[recipe.estimator].initial_tunables(tunables_key, NUM_LATENTS)
    return Training(model, optimizer(recipe).init(model), tunables, tunables_optimizer(recipe).init(tunables))


def order_of_epochs(key: PRNGKeyArray, epochs: Int[Array, "epochs"], num_images: int) -> Int[Array, "epochs n"]:
    """In which order each epoch goes through the images."""
    return jax.vmap(lambda epoch: jax.random.permutation(jax.random.fold_in(key, epoch), num_images))(epochs)


@functools.partial(jax.jit, static_argnames=("recipe", "num_steps"), donate_argnames="training")
def train(
    training: Training, keys: PRNGKeyArray, first_step: Int[Array, ""], data: Data, recipe: Recipe, num_steps: int
) -> tuple[Training, Float[Array, "seeds"]]:
    """Takes so many steps with each of the seeds; returns also the mean of the minibatches' negative bounds.

    What a step does depends on its key and its number only, and not on the blocks that steps come in.
    """
    batch_size = recipe.settings.batch_size
    steps_an_epoch = len(data.train) // batch_size
    num_epochs = (num_steps - 1) // steps_an_epoch + 2  # that so many steps can touch

    def of_one_seed(training: Training, key: PRNGKeyArray) -> tuple[Training, Float[Array, ""]]:
        order_key, step_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        first_epoch = first_step // steps_an_epoch
        orders = order_of_epochs(order_key, first_epoch + jnp.arange(num_epochs), len(data.train))

        def step(training: Training, i: Int[Array, ""]) -> tuple[Training, Float[Array, ""]]:
            place = first_step + i - first_epoch * steps_an_epoch
            epoch, batch = place // steps_an_epoch, place % steps_an_epoch
            chosen = lax.dynamic_slice(orders, (epoch, batch * batch_size), (1, batch_size))[0]
            key = jax.random.fold_in(step_key, first_step + i)
            return train_step(training, key, recipe, data.train[chosen], data.mean)

        training, losses = lax.scan(step, training, jnp.arange(num_steps))
        return training, jnp.mean(losses)

    return jax.vmap(of_one_seed)(training, keys)


def train_step(
    training: Training,
    key: PRNGKeyArray,
    recipe: Recipe,
    images: UInt8[Array, "b pixels"],
    mean: Float[Array, "pixels"],
) -> tuple[Training, Float[Array, ""]]:
    """One step on one minibatch: binarise it, step the model, step the control variate."""
    image_key, loss_key = jax.random.split(key)
    images = binarised(image_key, images)
    value, (slopes, tunables_slopes) = jax.value_and_grad(loss, (0, 1))(
        training.model, training.tunables, loss_key, recipe, images, mean
    )
    with jax.numpy_dtype_promotion("standard"):  # which optax itself relies on
        updates, optimizer_state = optimizer(recipe).update(slopes, training.optimizer, training.model)
        tunables_updates, tunables_state = tunables_optimizer(recipe).update(
            tunables_slopes, training.tunables_optimizer, training.tunables
        )
    model: Any = optax.apply_updates(training.model, updates)
    tunables = optax.apply_updates(training.tunables, tunables_updates)
    return Training(model, optimizer_state, tunables, tunables_state), value


def mean_over_images(of_one_image: Callable, key: PRNGKeyArray, images: Any, chunk: int) -> Float[Array, ""]:
    """The mean of a function of a key and a binarised image, so many images at a time."""

    def of_one_key(key: PRNGKeyArray, image: UInt8[Array, "pixels"]) -> Float[Array, ""]:
        image_key, key = jax.random.split(key)
        return of_one_image(key, binarised(image_key, image))

    def of_one_index(i: Int[Array, ""]) -> Float[Array, ""]:
        return of_one_key(jax.random.fold_in(key, i), images[i])

    return jnp.mean(lax.map(of_one_index, jnp.arange(len(images)), batch_size=chunk))


@functools.partial(jax.jit, static_argnames=("protocol", "num_samples"))
def bound(
    models: Autoencoder,
    key: PRNGKeyArray,
    images: UInt8[Array, "n pixels"],
    mean: Float[Array, "pixels"],
    protocol: Protocol,
    num_samples: int,
) -> Float[Array, "seeds"]:
    r"""The bound :math:`\log \frac1n \sum_k p(x, b_k) / q(b_k|x)` in nats, mean over images; the ELBO for one sample.

    The same key gives each model, and each call, the same pixels.
    """

    def of_one_model(model: Autoencoder) -> Float[Array, ""]:
        def of_one_image(key: PRNGKeyArray, image: Float[Array, "pixels"]) -> Float[Array, ""]:
            posterior = encode(model, protocol, image, mean)
            bits = jax.vmap(posterior.sample)(jax.random.split(key, num_samples))
            log_joints = jax.vmap(lambda b: log_joint(model, protocol, b, image))(bits)
            log_weights = log_joints - jax.vmap(posterior.log_prob)(bits)
            return jax.nn.logsumexp(log_weights) - math.log(num_samples)

        # 2,000 rows at a time: what the decoder makes of them stays in the cache.
        return mean_over_images(of_one_image, key, images, chunk=max(1, min(len(images), 2000 // num_samples)))

    return jax.vmap(of_one_model)(models)


@functools.partial(jax.jit, static_argnames=("recipe", "num_pairs"))
def encoder_variance(
    training: Training, key: PRNGKeyArray, data: Data, recipe: Recipe, num_pairs: int
) -> tuple[Float[Array, "seeds"], Float[Array, "seeds"]]:
    """The estimator's variance with frozen parameters on one fixed minibatch, mean over the encoder's parameters.

    Half the mean square of the difference of two gradients is unbiased for it, and comes with a standard error over the
    pairs of keys. The minibatch is the first one of the training images, binarised once.

    Returns:
      Variance and standard error, in squared nats, of the gradient of the minibatch's *mean* loss.
    """
    image_key, key = jax.random.split(key)
    images = binarised(image_key, data.train[: recipe.settings.batch_size])

    def of_one_seed(training: Training) -> tuple[Float[Array, ""], Float[Array, ""]]:
        model = training.model

        def gradient(key: PRNGKeyArray) -> Any:
            def of_encoder(encoder: Network) -> Float[Array, ""]:
                return loss(model._replace(encoder=encoder), training.tunables, key, recipe, images, data.mean)

            return jax.grad(of_encoder)(model.encoder)

        def of_one_pair(i: Int[Array, ""]) -> Float[Array, ""]:
            first, second = (gradient(k) for k in jax.random.split(jax.random.fold_in(key, i)))
            leaves = jax.tree.leaves(jax.tree.map(lambda a, b: (a - b) ** 2 / 2, first, second))
            return functools.reduce(jnp.add, map(jnp.sum, leaves)) / sum(leaf.size for leaf in leaves)

        pairs = lax.map(of_one_pair, jnp.arange(num_pairs))
        return jnp.mean(pairs), jnp.std(pairs, ddof=1) / math.sqrt(num_pairs)

    return jax.vmap(of_one_seed)(training)
