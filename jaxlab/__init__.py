"""jaxlab: gradients through the steps that have none, and how good they are.

A sample, an argmax, a rounding have no derivative. jaxlab gives JAX programs useful ones, and says of each whether it
is biased, how much it varies and what it costs.

- :mod:`jaxlab.gradients`: the same value, another gradient (straight-through, the rotation trick, the magic box).
- :mod:`jaxlab.gumbel`: Gumbel noise; samples, relaxations, subsets and permutations made of it.
- :mod:`jaxlab.moments`: means and variances that merge, standard errors, moving averages.
- :mod:`jaxlab.smooth`: smooth maxima, sorts, ranks, top-k masks, alignments, with stated errors.
- :mod:`jaxlab.distributions`: random variables as NamedTuples, with their capabilities.
- :mod:`jaxlab.metrics`: metrics that merge over batches and devices, smooth and hard, and losses made of them.
- :mod:`jaxlab.estimators`: expectations whose ``jax.grad`` is the named estimator.
- :mod:`jaxlab.recurrent`: one fast scan for every recurrent cell, masks and resets, the cells.
- :mod:`jaxlab.ordered`: the cumulative softmax, the ordered-neuron LSTM, and the trees that it draws.
- :mod:`jaxlab.quantize`: nearest codes, quantizers as pure functions, how they use their codes.

Every function is pure, takes its ``key`` first and its options by name, is written for one example (``jax.vmap``
makes a batch) and has its shapes in its annotations. In them, b stands for a batch, t for time, n for samples, k for
categories or codes, d for features, h for hidden units, and ``*shape`` for any axes. They are checked as a program is
traced if it begins with ``jaxtyping.install_import_hook("jaxlab", "beartype.beartype")``.

>>> import jax, jax.numpy as jnp
>>> from jaxlab import estimators
>>> from jaxlab.distributions import Bernoulli
>>> def loss(logits):
...     return estimators.exact(jax.random.key(0), Bernoulli(logits), lambda bits: jnp.prod(bits))
>>> jax.grad(loss)(jnp.zeros(2)).tolist()
[0.125, 0.125]
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxlab import (
        distributions,
        estimators,
        gradients,
        gumbel,
        metrics,
        moments,
        ordered,
        quantize,
        recurrent,
        smooth,
    )

__all__ = [
    "distributions",
    "estimators",
    "gradients",
    "gumbel",
    "metrics",
    "moments",
    "ordered",
    "quantize",
    "recurrent",
    "smooth",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    # A module is read when it is first asked for: ``import jaxlab`` costs next to nothing.
    if name in __all__:
        return importlib.import_module(f"jaxlab.{name}")
    raise AttributeError(f"module 'jaxlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
