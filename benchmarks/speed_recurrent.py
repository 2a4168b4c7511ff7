"""Recurrent networks: training steps of our scan beside a plain one, beside bare matrix products, and other libraries.

``benchmarks.speed`` times these lines with the others. A training step is value and gradient, with respect to all
weights, of a stack of layers over a window of text: at the size of the ON-LSTM paper (400-1150-1150-400 units, 70
steps, 20 sequences) and at a small one (256 units, 64 steps, 32 sequences).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich
from jax import lax

from benchmarks.comparison import Comparison
from jaxlab import ordered, recurrent
from jaxlab.recurrent import Affine, LSTMCarry, Residuals


@dataclass(frozen=True)
class Size:
    """A stack of layers and the window it is trained on."""

    name: str
    dims: tuple[int, ...]  # of the input, then of each layer
    chunk_size: int
    num_steps: int
    batch_size: int


PAPER = Size("400-1150-1150-400", (400, 1150, 1150, 400), 10, 70, 20)
SMALL = Size("256", (256, 256), 8, 64, 32)


def zero_carry(size: Size, hidden_dim: int) -> LSTMCarry:
    """The state before the first step."""
    return LSTMCarry(*[jnp.zeros((size.batch_size, hidden_dim))] * 2)


def data(size: Size, num_gates: Callable[[int], int]) -> tuple[list[Affine], jax.Array]:
    """Weights of the layers, ``num_gates(hidden_dim)`` pre-activations each, and inputs."""
    keys = jax.random.split(jax.random.key(0), len(size.dims))
    layers = [
        recurrent.uniform_affine(key, input_dim=below, hidden_dim=above, num_preactivations=num_gates(above))
        for key, below, above in zip(keys[1:], size.dims[:-1], size.dims[1:], strict=True)
    ]
    return layers, jax.random.normal(keys[0], (size.num_steps, size.batch_size, size.dims[0]))


def ordered_gates(size: Size) -> Callable[[int], int]:
    """How many pre-activations an ordered LSTM of this chunk size has."""
    return lambda hidden_dim: 2 * hidden_dim // size.chunk_size + 4 * hidden_dim


def training_step(layer: Callable[[Affine, jax.Array], jax.Array]) -> Callable:
    """Value and gradient of a loss of the top layer's hidden states, with respect to all layers and the inputs."""

    def loss(layers, inputs):
        hidden = inputs
        for weights in layers:
            hidden = layer(weights, hidden)
        return jnp.mean(hidden**2)

    return jax.jit(jax.value_and_grad(loss, (0, 1)))


def ours(size: Size, cell: Callable, hidden_of: Callable = lambda outputs: outputs, **options: Any) -> Callable:
    """The training step by ``scan_affine``."""

    def layer(weights, inputs):
        carry = zero_carry(size, weights.recurrent.shape[0])
        return hidden_of(recurrent.scan_affine(cell, weights, inputs, carry, **options)[1])

    return training_step(layer)


def ours_ordered(size: Size, **options: Any) -> Callable:
    """The training step of the ordered LSTM by ``scan_affine``."""
    cell = partial(ordered.ordered_lstm, chunk_size=size.chunk_size)
    return ours(size, cell, lambda outputs: outputs.hidden, **options)


def naive_ordered(size: Size) -> Callable:
    """The ordered LSTM as one writes it down from the paper: one product of [x, h] a step in ``lax.scan``."""

    def layer(weights, inputs):
        matrix = jnp.concatenate([weights.input, weights.recurrent])
        hidden_dim = weights.recurrent.shape[0]
        levels = hidden_dim // size.chunk_size
        ends = np.cumsum([levels, levels, hidden_dim, hidden_dim, hidden_dim])

        def step(carry, x):
            gates = jnp.concatenate([x, carry.hidden], -1) @ matrix + weights.bias
            below, keep, show, candidate, write, forget = jnp.split(gates, ends, -1)
            keep = jnp.repeat(jnp.cumsum(jax.nn.softmax(keep), -1), size.chunk_size, -1)
            write_level = jnp.repeat(1 - jnp.cumsum(jax.nn.softmax(below), -1), size.chunk_size, -1)
            overlap = keep * write_level
            forget = jax.nn.sigmoid(forget) * overlap + (keep - overlap)
            write = jax.nn.sigmoid(write) * overlap + (write_level - overlap)
            memory = forget * carry.memory + write * jnp.tanh(candidate)
            hidden = jax.nn.sigmoid(show) * jnp.tanh(memory)
            return LSTMCarry(hidden, memory), hidden

        return lax.scan(step, zero_carry(size, hidden_dim), inputs)[1]

    return training_step(layer)


def bare_products(size: Size) -> Callable:
    """The matrix products of a training step and no other arithmetic: what no program that steps in time can beat.

    One recurrent product a step and direction; the products with inputs, and those of the weights' gradients, once.
    """

    @jax.jit
    def step(layers, inputs):
        hidden, results = inputs, []
        for weights in layers:
            hidden_dim, width = weights.recurrent.shape
            below, projected = hidden, hidden @ weights.input

            def forward(hidden, projected, weights=weights, hidden_dim=hidden_dim):
                hidden = (projected + hidden @ weights.recurrent)[:, :hidden_dim]
                return hidden, hidden

            start = jnp.zeros((size.batch_size, hidden_dim))
            _, hidden = lax.scan(forward, start, projected)
            transposed = lax.optimization_barrier(weights.recurrent.T)

            def backward(gradient, projected, transposed=transposed, hidden_dim=hidden_dim, width=width):
                gradient = jnp.pad(gradient, ((0, 0), (0, width - hidden_dim))) + projected
                return gradient @ transposed, None

            first, _ = lax.scan(backward, start, projected, reverse=True)
            flat = projected.reshape(-1, width)
            results += [
                first,
                below.reshape(-1, below.shape[-1]).T @ flat,
                hidden.reshape(-1, hidden_dim).T @ flat,
                flat @ weights.input.T,
            ]
        return results

    return step


def flax_lstm(size: Size) -> tuple[Callable, Any, jax.Array]:
    """The training step of flax's own plain LSTM, with its parameters and inputs."""
    from flax import linen as nn

    class Stack(nn.Module):
        @nn.compact
        def __call__(self, hidden):
            for hidden_dim in size.dims[1:]:
                layer: Any = nn.RNN(nn.OptimizedLSTMCell(hidden_dim), time_major=True)
                hidden = layer(hidden)
            return hidden

    stack: Any = Stack()
    inputs = jax.random.normal(jax.random.key(0), (size.num_steps, size.batch_size, size.dims[0]))
    parameters = jax.jit(stack.init)(jax.random.key(1), inputs)

    def loss(parameters, inputs):
        return jnp.mean(stack.apply(parameters, inputs) ** 2)

    return jax.jit(jax.value_and_grad(loss, (0, 1))), parameters, inputs


def torch_lstm(size: Size) -> Callable[[], Any]:
    """The training step of torch's plain LSTM, whose loop is compiled for the processor."""
    import torch  # pyright: ignore[reportMissingImports] - only where peers are installed

    torch.manual_seed(0)
    layers = [torch.nn.LSTM(below, above) for below, above in zip(size.dims[:-1], size.dims[1:], strict=True)]
    inputs = torch.randn(size.num_steps, size.batch_size, size.dims[0], requires_grad=True)

    def step():
        for layer in layers:
            layer.zero_grad()
        hidden = inputs
        for layer in layers:
            hidden, _ = layer(hidden)
        loss = (hidden**2).mean()
        loss.backward()
        return float(loss)

    return step


def temporary_bytes(step: Any, *arguments: Any) -> int:
    """What a compiled step allocates beside its arguments and results."""
    return step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def lines() -> list[Comparison]:
    """Ours beside the cell in ``lax.scan``, and beside the bare matrix products."""
    made = []
    for size, over_naive, over_products, seconds in ((PAPER, 1 / 2.0, 1.20, 1.0), (SMALL, 1 / 1.25, 1.6, 0.1)):
        arguments = data(size, ordered_gates(size))
        step = partial(ours_ordered(size), *arguments)
        naive, products = partial(naive_ordered(size), *arguments), partial(bare_products(size), *arguments)
        made += [
            (f"ordered_lstm {size.name} / cell in lax.scan", step, naive, over_naive, seconds),
            (f"ordered_lstm {size.name} / bare matrix products", step, products, over_products, seconds),
        ]
    return [Comparison(*line) for line in made]


def peer_lines() -> list[Comparison]:
    """Beside the plain LSTMs of flax and torch, as far as they are installed."""
    made = []
    flax_aim = 1 / 1.7
    for size, torch_aim, seconds in ((PAPER, 1.3, 1.0), (SMALL, 1.7, 0.1)):
        plain = partial(ours(size, recurrent.lstm), *data(size, lambda hidden_dim: 4 * hidden_dim))
        ordered_step = partial(ours_ordered(size), *data(size, ordered_gates(size)))
        try:
            step, parameters, inputs = flax_lstm(size)
            flax_step = partial(step, parameters, inputs)
            made += [
                (f"lstm {size.name} / flax RNN(OptimizedLSTMCell)", plain, flax_step, flax_aim, seconds),
                (f"ordered_lstm {size.name} / flax's plain LSTM", ordered_step, flax_step, flax_aim, seconds),
            ]
        except ImportError as error:
            rich.print(f"[yellow]left out: flax: {error}")
        try:
            made.append((f"lstm {size.name} / torch.nn.LSTM", plain, torch_lstm(size), torch_aim, seconds))
        except ImportError as error:
            rich.print(f"[yellow]left out: torch: {error}")
    return [Comparison(*line) for line in made]


def memory() -> dict[str, float]:
    """Temporary memory of our training step of the ordered LSTM, over that of the cell in ``lax.scan``."""
    ratios = {}
    for size in (PAPER, SMALL):
        arguments = data(size, ordered_gates(size))
        of_naive = temporary_bytes(naive_ordered(size), *arguments)
        for residuals in (Residuals.PRE_ACTIVATIONS, Residuals.NONE):
            of_ours = temporary_bytes(ours_ordered(size, residuals=residuals), *arguments)
            name = f"temporary memory of ordered_lstm {size.name}, {residuals.name} / cell in lax.scan"
            ratios[name] = of_ours / of_naive
    return ratios
