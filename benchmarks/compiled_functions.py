"""Public functions at sizes where growth shows, with the shapes of their arguments on a mesh: what the table compiles.

Vectors x codes, steps x steps, samples x parameters: a function that keeps such a matrix, where the mathematics does
not ask for it, has hundreds of MiB here. All functions are compiled at the size of their row in the compile law
(``tests/test_compile.py``), whose costs ``benchmarks.compile`` takes over, and at a large one too by
``benchmarks.compile --every-function`` (``benchmarks.compiled_rows``).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from benchmarks import binary_vae, trained_estimators
from benchmarks.compilers import placed
from benchmarks.speed_recurrent import PAPER, data, ordered_gates, ours, ours_ordered
from experiments.vqvae_pixelcnn.model import Model, QuantizerName, quantizer_of
from jaxlab import gumbel, metrics, moments, ordered, quantize, recurrent, smooth

# Vectors, their features, and codes.
N, D, K = 8192, 64, 1024
BATCH = 8


@dataclass(frozen=True)
class Function:
    """A public function, value and gradient, with arguments of a large size."""

    name: str
    call: Callable
    arguments: tuple[Any, ...]
    """Shapes."""
    spread: tuple[int | None, ...]
    """For each argument the axis of its arrays that is spread over the devices, if any."""

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        """Traces it for a mesh."""
        if hasattr(self.call, "lower"):
            program: Any = self.call
        else:
            program = jax.jit(self.call)
        arguments = [
            placed(argument, mesh, *(() if axis is None else (*(None,) * axis, "batch")))
            for argument, axis in zip(self.arguments, self.spread, strict=True)
        ]
        return program.lower(*arguments)


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """An array."""
    return jax.ShapeDtypeStruct(sizes, dtype)


KEY = jax.eval_shape(lambda: jax.random.key(0))


def search(num_codes: int, num_vectors: int = 32_768, **options: Any) -> Function:
    """Nearest codes, without gradient."""
    name = "".join(f", {option if value else f'without {option}'}" for option, value in options.items())
    call = functools.partial(quantize.nearest_code, **options)
    return Function(f"nearest_code {num_codes:,}{name}", call, (shape(num_vectors, D), shape(num_codes, D)), (0, None))


def quantizer(name: QuantizerName) -> Function:
    """A quantizer's training step: values, codes, loss, state, and the gradient to vectors and parameters."""
    made, features = quantizer_of(Model(quantizer=name, num_codes=K, code_dim=D, levels=(8, 8, 4, 4)))
    x = shape(N, features)
    params, state = jax.eval_shape(made.init, KEY, x)

    def step(key, params, state, x):
        def loss(params, x):
            out, after = made.apply(key, params, state, x)
            return jnp.mean(out.values**2) + out.loss, (out.codes, after)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    return Function(f"quantizer {name}", step, (KEY, params, state, x), (None, None, None, 0))


def of_batch(name: str, call: Callable, *arguments: Any) -> Function:
    """A function of one example, and its gradient to the first argument, over a batch of examples."""
    batch = tuple(shape(BATCH, *argument.shape, dtype=argument.dtype) for argument in arguments)

    def summed(*arguments):
        return jnp.sum(call(*arguments) ** 2)

    return Function(name, jax.vmap(jax.value_and_grad(summed)), batch, (0,) * len(batch))


def estimator(name: str) -> Function:
    """A training step of the auto-encoder with 200 bits on a batch of 100 images."""
    fewest = next(n for n in range(2, 100) if trained_estimators.num_samples_of(name, n))
    recipe = binary_vae.Recipe("rodeo", "nonlinear", name, fewest)
    mean = shape(784)
    keys = jax.eval_shape(lambda: jax.vmap(jax.random.key)(jnp.arange(1)))
    batched = jax.eval_shape(lambda keys, mean: binary_vae.initial_training(keys, recipe, mean), keys, mean)
    training = jax.tree.map(lambda x: shape(*x.shape[1:], dtype=x.dtype), batched)

    def step(training, key, images, mean):
        return binary_vae.train_step(training, key, recipe, images, mean)

    # 96 images, which four and eight devices share evenly.
    arguments = (training, KEY, shape(96, 784, dtype=jnp.uint8), mean)
    return Function(f"estimator {name}, {fewest} evaluations", step, arguments, (None, None, 0, None))


def recurrent_step(name: str, make: Callable, num_gates: Callable[[int], int]) -> Function:
    """A training step of the ON-LSTM paper's three layers."""
    return Function(name, make, jax.eval_shape(lambda: data(PAPER, num_gates)), (None, None))


POINTS, WIDTH = shape(2048), shape(2048, 16)

FUNCTIONS: tuple[Function, ...] = (
    search(512),
    search(8192),
    search(8192, kernel=False),
    search(8192, operand_dtype=jnp.bfloat16),
    *(quantizer(name) for name in get_args(QuantizerName)),
    of_batch("rank 10,000", smooth.rank, shape(10_000)),
    of_batch("sort 10,000", smooth.sort, shape(10_000)),
    of_batch("pairwise_rank 2,048", smooth.pairwise_rank, POINTS),
    of_batch("top_k_mask 10,000", lambda x: smooth.top_k_mask(x, 100), shape(10_000)),
    of_batch("roc_auc 2,048", metrics.roc_auc, POINTS, shape(2048, dtype=jnp.int32)),
    of_batch("average_precision 2,048", metrics.average_precision, POINTS, shape(2048, dtype=jnp.int32)),
    of_batch("dtw 512 x 512", smooth.dtw, shape(512, 512)),
    of_batch("mmd 2,048", moments.mmd, WIDTH, WIDTH),
    of_batch("hsic 2,048", moments.hsic, WIDTH, WIDTH),
    of_batch("energy_distance 2,048", moments.energy_distance, WIDTH, WIDTH),
    of_batch("kendall 2,048", moments.kendall, POINTS, POINTS),
    of_batch("log_sinkhorn 256 x 256", gumbel.log_sinkhorn, shape(256, 256)),
    of_batch("cumax 4,096", ordered.cumax, shape(4096)),
    Function(
        "distance_to_tree 256",
        jax.vmap(lambda distances, length: ordered.distance_to_tree(distances, length)),
        (shape(BATCH, 256), shape(BATCH, dtype=jnp.int32)),
        (0, 0),
    ),
    *(estimator(name) for name in trained_estimators.TRAINED),
    recurrent_step("scan_affine ordered_lstm 400-1150-1150-400", ours_ordered(PAPER), ordered_gates(PAPER)),
    recurrent_step("scan_affine lstm 400-1150-1150-400", ours(PAPER, recurrent.lstm), lambda hidden: 4 * hidden),
)
