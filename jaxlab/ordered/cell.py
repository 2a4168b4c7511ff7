"""The ordered-neuron LSTM: a cell for ``recurrent.scan_affine``, its initial weights, its reference layout."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab.ordered.cumulative import cumax
from jaxlab.recurrent import Affine, LSTMCarry, uniform_affine
from jaxlab.recurrent.weights import place

__all__ = [
    "OrderedOutputs",
    "ReferenceWeights",
    "from_reference_weights",
    "initial_ordered_lstm",
    "ordered_lstm",
    "to_reference_weights",
]


class OrderedOutputs(NamedTuple):
    """What one step of the ordered LSTM shows."""

    hidden: Float[Array, "*batch h"]
    forget_distance: Float[Array, "*batch"]  # the share of the levels that is erased, in [0, 1): the parsers' input
    input_distance: Float[Array, "*batch"]  # the share of the levels that is written, in [0, 1]


class ReferenceWeights(NamedTuple):
    """Weights as the authors' program stores them: two linear maps, rows for outputs, each with a bias."""

    ih_weight: Float[Array, "m d"]
    ih_bias: Float[Array, "m"]
    hh_weight: Float[Array, "m h"]
    hh_bias: Float[Array, "m"]


def levels_of(function: str, hidden_dim: int, chunk_size: int) -> int:
    """The number of levels; raises if the chunks do not fill the hidden units."""
    _check.at_least(function, "chunk_size", chunk_size, 1)
    if hidden_dim % chunk_size:
        raise ValueError(
            f"{function}: chunk_size must divide the number of hidden units, {hidden_dim}; got {chunk_size}"
        )
    return hidden_dim // chunk_size


def each_for(number: int, levels: Float[Array, "*batch k"]) -> Float[Array, "*batch h"]:
    """Every element so many times, one after the other."""
    wide = lax.broadcast_in_dim(levels, (*levels.shape, number), range(levels.ndim))
    return wide.reshape(*levels.shape[:-1], levels.shape[-1] * number)


@jit(static=("chunk_size", "inclusive", "split"))
def ordered_lstm(
    carry: LSTMCarry,
    preactivations: Float[Array, "*batch m"],
    *,
    chunk_size: int,
    inclusive: bool = False,
    split: Callable = cumax,
) -> tuple[LSTMCarry, OrderedOutputs]:
    r"""One step of the ordered-neuron LSTM: what is kept long has to be of a high level.

    .. math:: \tilde f = \mathrm{cumax}(a^{\tilde f}), \qquad \tilde\imath = 1 - \mathrm{cumax}(a^{\tilde\imath}),
              \qquad f, i, o = \sigma(a^f, a^i, a^o), \qquad \hat c = \tanh(a^c)

    .. math:: \omega = \tilde f \odot \tilde\imath, \qquad
              c_t = (f \odot \omega + \tilde f - \omega) \odot c_{t-1}
                  + (i \odot \omega + \tilde\imath - \omega) \odot \hat c, \qquad
              h_t = o \odot \tanh(c_t)

    with each level of the master gates :math:`\tilde f, \tilde\imath` shared by a chunk of neighbouring units.

    With the paper's input gate the last chunk is dead: there :math:`\tilde\imath = 0` and :math:`\tilde f = 1` up to
    rounding, so its units are never written. ``inclusive`` lets each level count itself,
    :math:`\tilde\imath_k = P(\mathrm{split} \ge k)`, and none is.

    Args:
      carry: hidden state and memory.
      preactivations: :math:`[a^{\tilde\imath}, a^{\tilde f}, a^o, a^c, a^i, a^f]`, one for each level in the first two
        blocks, one for each unit in the others. Recurrent weights without columns for the first two blocks make
        master gates of the input alone.
      chunk_size: units in a level; divides the number of hidden units.
      inclusive: the input gate without a dead chunk, in place of the paper's.
      split: what makes the master gates of logits along the last axis: :func:`cumax`, or a hard one.

    Returns:
      The new carry, and :class:`OrderedOutputs`: the hidden state in [-1, 1], and the distances.

    Gradient:
      Exact, if that of ``split`` is.

    Raises:
      ValueError: if ``chunk_size`` does not divide the hidden units, or ``preactivations`` are of another number.

    Examples:
      >>> import jax.numpy as jnp
      >>> zero = LSTMCarry(jnp.zeros(4), jnp.zeros(4))
      >>> carry, outputs = ordered_lstm(zero, jnp.ones(2 * 2 + 4 * 4), chunk_size=2)
      >>> (outputs.hidden > 0).tolist(), float(outputs.forget_distance)  # the last chunk is dead
      ([True, True, False, False], 0.25)

    Reference:
      Shen, Tan, Sordoni, Courville, "Ordered Neurons: Integrating Tree Structures into Recurrent Neural Networks",
      2019, eqs. (6)-(14). https://arxiv.org/abs/1810.09536
    """
    hidden_dim = carry.hidden.shape[-1]
    levels = levels_of("ordered_lstm", hidden_dim, chunk_size)
    batch, wanted = carry.hidden.shape[:-1], 2 * levels + 4 * hidden_dim
    if preactivations.shape != (*batch, wanted):
        raise ValueError(
            f"ordered_lstm: preactivations must have shape {[*batch, wanted]}, two for each of {levels} levels and four"
            f" for each of {hidden_dim} units; got {list(preactivations.shape)}"
        )
    # Parts by lax.split, whose transpose is a concatenation; that of slices would be a sum of padded arrays.
    sizes = (2 * levels, *(hidden_dim,) * 4)
    masters, *blocks = lax.split(preactivations, sizes, axis=len(batch))
    masters = split(masters.reshape(*batch, 2, levels))
    below, forget_master = (part[..., 0, :] for part in lax.split(masters, (1, 1), axis=len(batch)))
    if inclusive:
        below = jnp.concatenate([jnp.zeros_like(below[..., :1]), below[..., :-1]], -1)
    input_master = 1 - below

    # sigmoid(z) = (1 + tanh(z / 2)) / 2: cheaper than one plus an exponential, and its inverse.
    show, candidate, write, forget = blocks
    show, write, forget = (0.5 + 0.5 * jnp.tanh(0.5 * block) for block in (show, write, forget))
    candidate = jnp.tanh(candidate)

    # To all units once: each broadcast is a sum in the backward pass. Nothing else has an axis of levels, for which a
    # TPU would turn each array around: a third of the kernels of a step.
    keep, write_level = (each_for(chunk_size, master) for master in (forget_master, input_master))
    forget_gate = keep * (forget * write_level + (1 - write_level))
    input_gate = write_level * (write * keep + (1 - keep))
    memory = forget_gate * carry.memory + input_gate * candidate
    hidden = show * jnp.tanh(memory)
    outputs = OrderedOutputs(hidden, 1 - forget_master.mean(-1), input_master.mean(-1))
    return LSTMCarry(hidden, memory), outputs


@jit(static=("input_dim", "hidden_dim", "chunk_size", "input_only"))
def initial_ordered_lstm(
    key: PRNGKeyArray, *, input_dim: int, hidden_dim: int, chunk_size: int, input_only: bool = False
) -> Affine:
    r"""The paper's initial weights of an ordered LSTM, in front of :func:`ordered_lstm`.

    .. math:: W, b_x \sim U(\pm d^{-1/2}), \qquad U, b_h \sim U(\pm h^{-1/2}), \qquad b = b_x + b_h

    Args:
      key: consumed.
      input_dim: features of one input.
      hidden_dim: hidden units.
      chunk_size: units in a level; divides ``hidden_dim``.
      input_only: leave out the recurrent weights of the master gates, which then depend on the input alone.

    Returns:
      The weights, in float32.

    Gradient:
      None: they are constants.

    Raises:
      ValueError: if ``chunk_size`` does not divide ``hidden_dim``, or a size is below 1.

    Examples:
      >>> import jax
      >>> initial_ordered_lstm(jax.random.key(0), input_dim=3, hidden_dim=8, chunk_size=4).bias.shape
      (36,)
    """
    levels = levels_of("initial_ordered_lstm", hidden_dim, chunk_size)
    width = 2 * levels + 4 * hidden_dim
    return uniform_affine(
        key,
        input_dim=input_dim,
        hidden_dim=hidden_dim,
        num_preactivations=width,
        recurrent_columns=4 * hidden_dim if input_only else width,
    )


@jit()
def from_reference_weights(reference: ReferenceWeights) -> Affine:
    r"""Weights of the authors' program (``ih.0`` and ``hh`` of a layer) as those of :func:`ordered_lstm`.

    .. math:: W = W_{ih}^\top, \qquad U = W_{hh}^\top, \qquad b = b_{ih} + b_{hh}

    The order of the pre-activations is the same.

    Args:
      reference: the two linear maps.

    Returns:
      The same map with one bias.

    Gradient:
      Exact.

    Raises:
      ValueError: if the shapes do not fit one another.

    Examples:
      >>> import jax.numpy as jnp
      >>> reference = ReferenceWeights(jnp.ones((6, 2)), jnp.ones(6), jnp.ones((6, 1)), jnp.ones(6))
      >>> from_reference_weights(reference).bias.tolist()
      [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    """
    _check.same_shape("from_reference_weights", ih_bias=reference.ih_bias, hh_bias=reference.hh_bias)
    for name in ("ih_weight", "hh_weight"):
        rows = getattr(reference, name).shape[0]
        if (rows,) != reference.ih_bias.shape:
            raise ValueError(
                f"from_reference_weights: {name} must have {reference.ih_bias.shape[0]} rows, as ih_bias; got {rows}"
            )
    return Affine(reference.ih_weight.T, reference.hh_weight.T, reference.ih_bias + reference.hh_bias)


@jit()
def to_reference_weights(weights: Affine) -> ReferenceWeights:
    r"""Weights of :func:`ordered_lstm` in the layout of the authors' program.

    The bias goes to the map of the inputs, and that of the hidden state is 0; so are its rows for master gates of
    the input alone.

    Args:
      weights: in front of :func:`ordered_lstm`.

    Returns:
      Two linear maps, of which :func:`from_reference_weights` makes the same function again.

    Gradient:
      Exact.

    Examples:
      >>> import jax
      >>> weights = initial_ordered_lstm(jax.random.key(0), input_dim=3, hidden_dim=4, chunk_size=2)
      >>> bool((from_reference_weights(to_reference_weights(weights)).input == weights.input).all())
      True
    """
    width = weights.bias.shape[0]
    recurrent = place(weights.recurrent, width, last=True)
    return ReferenceWeights(weights.input.T, weights.bias, recurrent.T, jnp.zeros_like(weights.bias))
