"""The vector quantizer whose codebook is a moving average."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxlab import _check
from jaxlab._precision import widen
from jaxlab.quantize._sums import code_sums, num_rows, spread_rows
from jaxlab.quantize.codebook import CodeAssignment, Parts, by_nearest_code, check_weights, codebook_quantizer
from jaxlab.quantize.contract import Quantizer, claims, flat_mask
from jaxlab.quantize.initial import InitialCodes, normal_codes
from jaxlab.quantize.nearest import unit
from jaxlab.quantize.through import GradientOperator, by_straight_through

__all__ = ["EmaState", "ema_vector_quantizer"]


class EmaState(NamedTuple):
    """A codebook, and the moving averages it is the quotient of."""

    codebook: Float[Array, "k d"]
    counts: Float[Array, "k"]  # how often each code is hit in a call; a decaying sum
    sums: Float[Array, "k d"]  # of the vectors that hit it
    weight: Float[Array, ""]  # what the decaying sums weigh; averages are sums over weight


@claims(lambda factory: factory(num_codes=8), idempotent=True, stateful=True)
def ema_vector_quantizer(
    *,
    num_codes: int,
    decay: float = 0.99,
    commitment_weight: float = 0.25,
    smoothing: float = 1e-5,
    restart_threshold: float = 0.0,
    cosine: bool = False,
    gradient: GradientOperator = by_straight_through,
    assign: CodeAssignment = by_nearest_code,
    initial_codes: InitialCodes = normal_codes,
    axis_name: str | None = None,
    code_axis_name: str | None = None,
) -> Quantizer:
    r"""The vector quantizer whose codes are moving averages of the vectors that chose them.

    .. math:: N_k \leftarrow \gamma N_k + (1 - \gamma) n_k, \quad m_k \leftarrow \gamma m_k + (1 - \gamma)
              \sum_{i(x) = k} x, \quad E_k \leftarrow \frac{m_k}{\tilde N_k}, \quad
              \tilde N_k = \frac{N_k + \epsilon}{N + K\epsilon} N, \quad L = \beta\, \overline{(x - \mathrm{sg}(E_i))^2}

    A code that no vector chose keeps its bits. Values and loss are those of the codebook before the update.
    ``params`` is empty, ``state`` an :class:`EmaState`.

    Args:
      num_codes: size of the codebook.
      decay: :math:`\gamma`, in [0, 1).
      commitment_weight: :math:`\beta`, which moves vectors to codes.
      smoothing: :math:`\epsilon` of Laplace smoothing, in hits a call.
      restart_threshold: a code with fewer hits than this part of the mean is put onto a vector of the call, and its
        averages are reset to the mean number of hits at that vector. 0 restarts none; 0.1 is usual.
      cosine: quantize directions: vectors and codes are scaled to length one. A zero vector stays zero and gets code 0,
        which it does not move.
      gradient: how the gradient passes from values to vectors.
      assign: how a code is chosen in training; evaluation takes the nearest one.
      initial_codes: makes the codebook from a sample. One batch is a good sample: its size is taken for that of a call.
      axis_name: of the axis over which vectors are spread: their sums are taken over all devices.
      code_axis_name: of the axis over which the codebook is spread, in equal parts, for everything but ``init``.

    Returns:
      A quantizer; values and loss have a gradient, codes are in [0, num_codes).

    Gradient:
      Of values: that of ``gradient``, by default straight-through (biased). Of the loss: exact. None to the state.

    Raises:
      ValueError: for fewer than 1 code, a decay outside [0, 1), a negative weight, smoothing or threshold; from its
        functions, for vectors of another number of features than the codebook's and a mask of another shape.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab.quantize import random_rows
      >>> quantizer = ema_vector_quantizer(num_codes=2, decay=0.0, initial_codes=random_rows)
      >>> x = jnp.array([[0.0], [10.0], [11.0]])
      >>> params, state = quantizer.init(jax.random.key(0), x[:2])
      >>> _, state = quantizer.apply(jax.random.key(1), params, state, x)
      >>> sorted(state.codebook.round(2).ravel().tolist())
      [0.0, 10.5]

    Reference:
      van den Oord, Vinyals, Kavukcuoglu, "Neural Discrete Representation Learning", 2017, appendix A.1.
      https://arxiv.org/abs/1711.00937
    """
    name = "ema_vector_quantizer"
    _check.at_least(name, "num_codes", num_codes, 1)
    _check.fraction(name, "decay", decay)
    check_weights(name, commitment_weight=commitment_weight, smoothing=smoothing, restart_threshold=restart_threshold)

    def init(
        key: PRNGKeyArray, sample: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Any, Any]:
        codebook = initial_codes(
            key,
            unit(widen(sample)) if cosine else sample,
            num_codes=num_codes,
            mask=mask,
            axis_name=axis_name,
        )
        codebook = unit(codebook) if cosine else codebook
        count = jnp.sum(flat_mask(sample, mask)).astype(codebook.dtype)
        count = count if axis_name is None else lax.psum(count, axis_name)
        counts = jnp.broadcast_to(count / num_codes, (num_codes,))
        return (), EmaState(codebook, counts, counts[:, None] * codebook, jnp.ones((), codebook.dtype))

    def update(key, state, x, codes, counted):
        hits, sums = code_sums(
            x,
            codes,
            counted,
            num_codes=state.codebook.shape[0],
            axis_name=axis_name,
            code_axis_name=code_axis_name,
        )
        state = EmaState(
            state.codebook,
            decay * state.counts + (1 - decay) * hits,
            decay * state.sums + (1 - decay) * sums,
            decay * state.weight + (1 - decay),
        )
        counts = state.counts / state.weight
        total = jnp.sum(counts) if code_axis_name is None else lax.psum(jnp.sum(counts), code_axis_name)
        smoothed = (counts + smoothing) / (total + num_codes * smoothing) * total
        means = state.sums / state.weight / jnp.where(smoothed > 0, smoothed, 1)[:, None]
        codebook = jnp.where(hits[:, None] > 0, unit(means) if cosine else means, state.codebook)
        state = state._replace(codebook=codebook)
        if not restart_threshold or not num_rows(x, axis_name):  # or no vector to put a code onto
            return state
        mean_count = total / num_codes
        candidates, usable = spread_rows(
            key,
            x,
            counted,
            num=num_codes,
            axis_name=axis_name,
            code_axis_name=code_axis_name,
        )
        restarts = usable & (counts < restart_threshold * mean_count)
        new_count = mean_count * state.weight
        return EmaState(
            jnp.where(restarts[:, None], candidates, state.codebook),
            jnp.where(restarts, new_count, state.counts),
            jnp.where(restarts[:, None], new_count * candidates, state.sums),
            state.weight,
        )

    return codebook_quantizer(
        Parts(
            name=name,
            num_codes=num_codes,
            init=init,
            codebook=lambda params, state: lax.stop_gradient(state.codebook),
            update=update,
            codebook_weight=0.0,
            commitment_weight=commitment_weight,
            cosine=cosine,
            gradient=gradient,
            code_axis_name=code_axis_name,
        ),
        assign,
    )
