r"""Gumbel noise: samples of a categorical as an argmax, its relaxations, subsets and permutations.

With :math:`G_i` independent standard Gumbel variables, :math:`\arg\max_i (\phi_i + G_i)` is a draw from
:math:`\mathrm{softmax}(\phi)`; the perturbed logits :math:`\phi_i + G_i` are the continuous variable behind it.

All noise is drawn and compared in float32 (float64 for float64 logits), whatever the dtype of the logits: bfloat16 has
128 distinct Gumbel values, and its ties would give the first 100 of 1,000 equal classes about 54% of the draws.
Logits may be ``-inf`` (an impossible category), and one of them may be ``+inf`` (a certain one).
"""

from jaxlab.gumbel.noise import conditional_gumbel, gumbel_max, perturb, perturb_binary
from jaxlab.gumbel.permutations import gumbel_sinkhorn, log_sinkhorn
from jaxlab.gumbel.relaxed import binary_concrete, concrete, log_concrete
from jaxlab.gumbel.subsets import OrderedSubset, gumbel_top_k

__all__ = [
    "OrderedSubset",
    "binary_concrete",
    "concrete",
    "conditional_gumbel",
    "gumbel_max",
    "gumbel_sinkhorn",
    "gumbel_top_k",
    "log_concrete",
    "log_sinkhorn",
    "perturb",
    "perturb_binary",
]
