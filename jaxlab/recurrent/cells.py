"""Recurrent cells as functions of pre-activations: what is left of a cell once its matrix products are taken out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlab._jit import jit

__all__ = ["LSTMCarry", "SLSTMCarry", "elman", "gru", "lstm", "slstm"]


class LSTMCarry(NamedTuple):
    """The state of an LSTM: what it shows, and what it remembers."""

    hidden: Float[Array, "*batch h"]
    memory: Float[Array, "*batch h"]


class SLSTMCarry(NamedTuple):
    """The state of an LSTM with an exponential input gate; memory and normaliser are in units of exp(stabiliser)."""

    hidden: Float[Array, "*batch h"]
    memory: Float[Array, "*batch h"]
    normaliser: Float[Array, "*batch h"]
    stabiliser: Float[Array, "*batch h"]


def check_width(function: str, hidden: Array, preactivations: Array, num_gates: int) -> None:
    """Raises unless there are ``num_gates`` pre-activations for each hidden unit, and the batch is the same."""
    wanted = (*hidden.shape[:-1], num_gates * hidden.shape[-1])
    if preactivations.shape != wanted:
        raise ValueError(
            f"{function}: preactivations must have shape {list(wanted)}, {num_gates} for each of the"
            f" {hidden.shape[-1]} hidden units; got {list(preactivations.shape)}"
        )


def sigmoids_and_tanh(
    preactivations: Float[Array, "*batch m"], *, num_sigmoids: int
) -> tuple[Float[Array, "*batch s"], Float[Array, "*batch r"]]:
    """The sigmoid of the first ``num_sigmoids`` pre-activations and the tanh of the others, from one sweep of tanh."""
    # sigmoid(z) = (1 + tanh(z / 2)) / 2
    scale = jnp.where(jnp.arange(preactivations.shape[-1]) < num_sigmoids, 0.5, 1).astype(preactivations.dtype)
    activations = jnp.tanh(preactivations * scale.reshape((1,) * (preactivations.ndim - 1) + (-1,)))
    return 0.5 + 0.5 * activations[..., :num_sigmoids], activations[..., num_sigmoids:]


@jit()
def elman(
    carry: Float[Array, "*batch h"], preactivations: Float[Array, "*batch h"]
) -> tuple[Float[Array, "*batch h"], Float[Array, "*batch h"]]:
    r"""One step of the simple recurrent network.

    .. math:: h_t = \tanh(a_t), \qquad a_t = W x_t + U h_{t-1} + b

    Args:
      carry: the hidden state.
      preactivations: :math:`a_t`.

    Returns:
      The new carry, and the hidden state in [-1, 1] as the output of the step.

    Gradient:
      Exact.

    Raises:
      ValueError: if ``preactivations`` are not one for each hidden unit.

    Examples:
      >>> import jax.numpy as jnp
      >>> elman(jnp.zeros(2), jnp.array([0.0, 100.0]))[1].tolist()
      [0.0, 1.0]

    Reference:
      Elman, "Finding Structure in Time", Cognitive Science, 1990.
    """
    check_width("elman", carry, preactivations, 1)
    hidden = jnp.tanh(preactivations)
    return hidden, hidden


@jit()
def gru(
    carry: Float[Array, "*batch h"], preactivations: Float[Array, "*batch m"]
) -> tuple[Float[Array, "*batch h"], Float[Array, "*batch h"]]:
    r"""One step of the gated recurrent unit whose reset gate comes after the matrix product.

    .. math:: h_t = (1 - z) \odot \tanh(n^x + r \odot n^h) + z \odot h_{t-1}, \qquad r = \sigma(a^r),\; z = \sigma(a^z)

    The pre-activations are :math:`[n^x, a^r, a^z, n^h]`: in :func:`scan_affine` the input weights have the first
    three blocks as columns and the recurrent weights the last three.

    Args:
      carry: the hidden state.
      preactivations: four for each hidden unit, in this order of blocks.

    Returns:
      The new carry, and the hidden state as the output of the step.

    Gradient:
      Exact.

    Raises:
      ValueError: if ``preactivations`` are not four for each hidden unit.

    Examples:
      >>> import jax.numpy as jnp
      >>> keep = jnp.array([0.0, 0.0, 100.0, 0.0])
      >>> gru(jnp.array([0.25]), keep)[1].tolist()
      [0.25]

    Reference:
      Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, eqs. (5)-(8), with the reset
      gate outside of the product, as in cuDNN. https://arxiv.org/abs/1406.1078
    """
    check_width("gru", carry, preactivations, 4)
    from_input, reset, update, from_hidden = jnp.split(preactivations, 4, -1)
    candidate = jnp.tanh(from_input + jax.nn.sigmoid(reset) * from_hidden)
    update = jax.nn.sigmoid(update)
    hidden = (1 - update) * candidate + update * carry
    return hidden, hidden


@jit()
def lstm(carry: LSTMCarry, preactivations: Float[Array, "*batch m"]) -> tuple[LSTMCarry, Float[Array, "*batch h"]]:
    r"""One step of the long short-term memory.

    .. math:: c_t = \sigma(a^f) \odot c_{t-1} + \sigma(a^i) \odot \tanh(a^c), \qquad
              h_t = \sigma(a^o) \odot \tanh(c_t)

    Args:
      carry: hidden state and memory.
      preactivations: :math:`[a^i, a^f, a^o, a^c]`, four for each hidden unit, in this order of blocks.

    Returns:
      The new carry, and the hidden state in [-1, 1] as the output of the step.

    Gradient:
      Exact.

    Raises:
      ValueError: if ``preactivations`` are not four for each hidden unit.

    Examples:
      >>> import jax.numpy as jnp
      >>> zero = LSTMCarry(jnp.zeros(1), jnp.zeros(1))
      >>> carry, hidden = lstm(zero, jnp.array([100.0, 0.0, 100.0, 100.0]))
      >>> carry.memory.tolist(), round(float(hidden[0]), 4)
      ([1.0], 0.7616)

    Reference:
      Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation, 1997; Gers, Schmidhuber, Cummins,
      "Learning to Forget", 2000 (the forget gate).
    """
    check_width("lstm", carry.hidden, preactivations, 4)
    gates, candidate = sigmoids_and_tanh(preactivations, num_sigmoids=3 * carry.hidden.shape[-1])
    write, forget, show = jnp.split(gates, 3, -1)
    memory = forget * carry.memory + write * candidate
    hidden = show * jnp.tanh(memory)
    return LSTMCarry(hidden, memory), hidden


@jit()
def slstm(carry: SLSTMCarry, preactivations: Float[Array, "*batch m"]) -> tuple[SLSTMCarry, Float[Array, "*batch h"]]:
    r"""One step of an LSTM with an exponential input gate and a normaliser, stabilised.

    .. math:: m_t = \max(\log f + m_{t-1}, a^i), \qquad f' = e^{\log f + m_{t-1} - m_t}, \quad i' = e^{a^i - m_t}

    .. math:: c_t = f' c_{t-1} + i' \tanh(a^c), \qquad n_t = f' n_{t-1} + i', \qquad
              h_t = \sigma(a^o)\, c_t / n_t, \qquad \log f = \log \sigma(a^f)

    The stabiliser :math:`m_t` cancels in :math:`c_t / n_t`: no exponential overflows, however large the gate. A carry
    of zeros is an empty memory, of which the first step remembers nothing.

    Args:
      carry: hidden state, memory, normaliser and stabiliser.
      preactivations: :math:`[a^i, a^f, a^o, a^c]`, four for each hidden unit, in this order of blocks.

    Returns:
      The new carry, and the hidden state in [-1, 1] as the output of the step.

    Gradient:
      Exact.

    Raises:
      ValueError: if ``preactivations`` are not four for each hidden unit.

    Examples:
      >>> import jax.numpy as jnp
      >>> zero = SLSTMCarry(*[jnp.zeros(1)] * 4)
      >>> slstm(zero, jnp.array([1000.0, 0.0, 100.0, 100.0]))[1].tolist()
      [1.0]

    Reference:
      Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024, eqs. (8)-(17). https://arxiv.org/abs/2405.04517
    """
    check_width("slstm", carry.hidden, preactivations, 4)
    log_write, forget, show, candidate = jnp.split(preactivations, 4, -1)
    log_forget = jax.nn.log_sigmoid(forget)
    remembered = carry.normaliser > 0
    stabiliser = jnp.where(remembered, jnp.maximum(log_forget + carry.stabiliser, log_write), log_write)
    kept = jnp.where(remembered, log_forget + carry.stabiliser - stabiliser, 0)
    forget, write = jnp.exp(kept), jnp.exp(log_write - stabiliser)
    memory = forget * carry.memory + write * jnp.tanh(candidate)
    normaliser = forget * carry.normaliser + write
    hidden = jax.nn.sigmoid(show) * memory / normaliser
    return SLSTMCarry(hidden, memory, normaliser, stabiliser), hidden
