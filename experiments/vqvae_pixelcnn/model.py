"""The auto-encoder: convolutions to a grid of vectors, a quantizer by name, and convolutions back."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.vqvae_pixelcnn.convolutions import Conv, UpConv
from jaxlab import quantize
from jaxlab.gradients import diveq
from jaxlab.quantize import Quantizer

QuantizerName = Literal[
    "ema",
    "ema_restart",
    "gradient",
    "rotation",
    "diveq",
    "sim",
    "fsq",
    "lfq",
    "bsq",
    "gumbel",
    "cosine",
    "stochastic",
    "residual",
    "product",
]


@dataclass(frozen=True)
class Model:
    """Settings of network and quantizer."""

    quantizer: QuantizerName = "ema_restart"
    """How vectors become codes."""
    num_codes: int = 512
    """Size of the codebook; for lfq and bsq a power of 2, for fsq the product of `levels`."""
    code_dim: int = 64
    """Features of a vector before it is quantized; for fsq, lfq and bsq that follows from the number of codes."""
    levels: tuple[int, ...] = (8, 8, 8)
    """Of fsq."""
    parts: int = 2
    """Codes of a vector: stages of residual, groups of product (each with a codebook of `num_codes`)."""
    temperature: float = 0.1
    """Of stochastic, in squared units of a vector."""
    hidden: int = 32
    """Channels of the convolutions."""
    residual_hidden: int = 16
    """Channels inside of a residual block, of which there are two on each side."""
    beta: float = 1.0
    """Weight of ||sg(z) - e||^2, which moves codes; an EMA does without."""
    gamma: float = 0.25
    """Weight of ||z - sg(e)||^2, which moves the encoder, relative to beta (Su 2019: 0.25)."""
    learning_rate: float = 1e-3
    """Of Adam."""


#: Whose codebook can be spread over devices.
SPREADABLE: tuple[QuantizerName, ...] = ("ema", "ema_restart", "gradient", "rotation", "cosine")
#: Whose noise is drawn for the whole batch at once: the compiler spreads their step over devices, by shapes alone.
NOISY: tuple[QuantizerName, ...] = ("gumbel", "stochastic")


def quantizer_of(
    model: Model, axis_name: str | None = None, code_axis_name: str | None = None
) -> tuple[Quantizer, int]:
    """The quantizer, and how many features it quantizes.

    Args:
      model: settings.
      axis_name: of the axis over which vectors are spread.
      code_axis_name: of the axis over which the codebook is spread.
    """
    if code_axis_name is not None and model.quantizer not in SPREADABLE:
        raise ValueError(
            f"{model.quantizer}: its codebook cannot be spread over devices; those of {', '.join(SPREADABLE)} can"
        )
    commitment = model.gamma * model.beta
    ema = functools.partial(
        quantize.ema_vector_quantizer,
        num_codes=model.num_codes,
        commitment_weight=commitment,
        initial_codes=quantize.random_rows,
        axis_name=axis_name,
        code_axis_name=code_axis_name,
    )
    gradient = functools.partial(
        quantize.vector_quantizer,
        num_codes=model.num_codes,
        codebook_weight=model.beta,
        commitment_weight=commitment,
        initial_codes=quantize.random_rows,
        axis_name=axis_name,
        code_axis_name=code_axis_name,
    )
    restarted = functools.partial(ema, restart_threshold=0.1)
    bits = round(math.log2(model.num_codes))
    makers: dict[str, tuple[Callable[[], Quantizer], int]] = {
        "ema": (ema, model.code_dim),
        "ema_restart": (restarted, model.code_dim),
        "gradient": (gradient, model.code_dim),
        "rotation": (functools.partial(ema, gradient=quantize.by_rotation), model.code_dim),
        # Its derivative moves the codes: no loss of its own.
        "diveq": (
            functools.partial(gradient, codebook_weight=0.0, commitment_weight=0.0, gradient=diveq),
            model.code_dim,
        ),
        "sim": (
            functools.partial(
                quantize.sim_vector_quantizer,
                num_codes=model.num_codes,
                codebook_weight=model.beta,
                commitment_weight=commitment,
            ),
            model.code_dim,
        ),
        "fsq": (functools.partial(quantize.finite_scalar_quantizer, levels=model.levels), len(model.levels)),
        "lfq": (functools.partial(quantize.lookup_free_quantizer, num_bits=bits, axis_name=axis_name), bits),
        "bsq": (functools.partial(quantize.binary_spherical_quantizer, num_bits=bits, axis_name=axis_name), bits),
        "gumbel": (functools.partial(quantize.gumbel_quantizer, num_codes=model.num_codes), model.code_dim),
        "cosine": (functools.partial(restarted, cosine=True), model.code_dim),
        "stochastic": (lambda: quantize.stochastic(restarted(), temperature=model.temperature), model.code_dim),
        "residual": (lambda: quantize.residual(restarted(), depth=model.parts), model.code_dim),
        "product": (lambda: quantize.product(restarted(), groups=model.parts), model.code_dim),
    }
    make, num_features = makers[model.quantizer]
    quantizer = make()
    if quantizer.num_codes != model.num_codes:
        raise ValueError(
            f"{model.quantizer}: num_codes must be {quantizer.num_codes}, what its levels or bits give;"
            f" got {model.num_codes}"
        )
    return quantizer, num_features


class Residual(nn.Module):
    """Two blocks relu, 3 x 3, relu, 1 x 1, each added to what comes in; a relu at the end."""

    hidden: int
    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(2):
            y = Conv(self.inner, 3, use_bias=False)(nn.relu(x))
            x = x + Conv(self.hidden, 1, use_bias=False)(nn.relu(y))
        return nn.relu(x)


class Encoder(nn.Module):
    """Images to a grid of vectors, a quarter as high and wide."""

    model: Model
    num_features: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.relu(Conv(self.model.hidden // 2, 4, stride=2)(images - 0.5))
        x = nn.relu(Conv(self.model.hidden, 4, stride=2)(x))
        x = Conv(self.model.hidden, 3)(x)
        x = Residual(self.model.hidden, self.model.residual_hidden)(x)
        return Conv(self.num_features, 1)(x)


class Decoder(nn.Module):
    """A grid of vectors to images."""

    model: Model
    channels: int

    @nn.compact
    def __call__(self, values: jax.Array) -> jax.Array:
        x = Conv(self.model.hidden, 3)(values)
        x = Residual(self.model.hidden, self.model.residual_hidden)(x)
        x = nn.relu(UpConv(self.model.hidden // 2)(x))
        return 0.5 + UpConv(self.channels)(x)


class TrainState(NamedTuple):
    """All that the next step depends on, besides its number and the data."""

    params: Any  # of encoder, decoder and quantizer, by these names
    quantizer_state: Any
    optimizer_state: Any


class VqVae(NamedTuple):
    """The functions of one model for images of one shape. Images are bytes, [b, height, width, channels].

    Codes have the height and width of the grid of vectors, then what the quantizer has of them for one vector.
    """

    init: Callable  # (key, images) -> TrainState
    step: Callable  # (key, state, images) -> (TrainState, metrics)
    encode: Callable  # (state, images) -> (vectors, codes)
    decode: Callable  # (state, codes) -> brightness in [0, 1], float
    num_codes: int
    code_shape: tuple[int, ...]  # of the codes of one vector


def as_brightness(images: jax.Array) -> jax.Array:
    """Bytes as numbers in [0, 1]."""
    return images.astype(jnp.float32) / 255


def vqvae(
    model: Model,
    shape: tuple[int, ...],
    variance: float,
    axis_name: str | None = None,
    code_axis_name: str | None = None,
) -> VqVae:
    """The model for images [height, width, channels] with this variance of brightness.

    Args:
      model: settings.
      shape: of one image; height and width are multiples of 4.
      variance: of the brightness of the training images, which scales the reconstruction error.
      axis_name: of the axis over which the batch is spread.
      code_axis_name: of the axis over which the codebook is spread, in ``step``.

    Returns:
      Its functions, not yet compiled.
    """
    if shape[0] % 4 or shape[1] % 4:
        raise ValueError(f"vqvae: height and width must be multiples of 4; got {shape}")
    quantizer, num_features = quantizer_of(model, axis_name, code_axis_name)
    encoder: Any = Encoder(model, num_features)
    decoder: Any = Decoder(model, shape[-1])
    optimizer = optax.adam(model.learning_rate)

    def init(key: jax.Array, images: jax.Array) -> TrainState:
        keys = jax.random.split(key, 3)
        images = as_brightness(images)
        encoder_params = encoder.init(keys[0], images[:1])
        vectors = encoder.apply(encoder_params, images)
        decoder_params = decoder.init(keys[1], vectors[:1])
        quantizer_params, quantizer_state = quantizer.init(keys[2], vectors)
        params = {"encoder": encoder_params, "decoder": decoder_params, "quantizer": quantizer_params}
        return TrainState(params, quantizer_state, optimizer.init(params))

    def loss_fn(params, quantizer_state, key, images):
        images = as_brightness(images)
        vectors = encoder.apply(params["encoder"], images)
        out, quantizer_state = quantizer.apply(key, params["quantizer"], quantizer_state, vectors)
        error = jnp.mean((decoder.apply(params["decoder"], out.values) - images) ** 2)
        loss = error / variance + out.loss
        metrics = {"loss": loss, "squared_error": error, "quantizer_loss": out.loss}
        if axis_name is not None:
            loss, metrics = jax.lax.pmean((loss, metrics), axis_name)
        return loss, (quantizer_state, metrics)

    def step(key: jax.Array, state: TrainState, images: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        gradient, (quantizer_state, metrics) = jax.grad(loss_fn, has_aux=True)(
            state.params, state.quantizer_state, key, images
        )
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, quantizer_state, optimizer_state), metrics

    def encode(state: TrainState, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        vectors = encoder.apply(state.params["encoder"], as_brightness(images))
        return vectors, quantizer.encode(state.params["quantizer"], state.quantizer_state, vectors)

    def decode(state: TrainState, codes: jax.Array) -> jax.Array:
        values = quantizer.decode(state.params["quantizer"], state.quantizer_state, codes)
        return jnp.clip(decoder.apply(state.params["decoder"], values), 0, 1)

    return VqVae(init, step, encode, decode, quantizer.num_codes, quantizer.code_shape)
