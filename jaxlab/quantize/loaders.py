"""Codebooks trained by other libraries."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxlab import _check
from jaxlab.quantize.moving import EmaState

__all__ = ["ema_state_from_haiku", "ema_state_from_vector_quantize_pytorch"]


def array(leaf: Any) -> jax.Array:
    """The numbers of an array, or of a tensor of torch that may be on another device or have a gradient."""
    return jnp.asarray(leaf.detach().cpu().numpy() if hasattr(leaf, "detach") else leaf)


def ema_state_from_haiku(state: Mapping[str, Mapping[str, ArrayLike]], *, decay: float) -> EmaState:
    r"""The state of ``hk.nets.VectorQuantizerEMA``, for :func:`ema_vector_quantizer` with the same decay.

    Its averages are kept there as sums and a number of calls t; the weight of the sums is :math:`1 - \gamma^t`.

    Args:
      state: what ``hk.transform_with_state`` returns, or its part, with one such module in it.
      decay: :math:`\gamma` with which it was trained, in [0, 1).

    Returns:
      The same codebook and averages, in the layout of this library.

    Gradient:
      None: it is a constant.

    Raises:
      ValueError: if there is no such module in the state, or more than one; for a decay outside [0, 1).

    Examples:
      >>> import numpy as np
      >>> average = {"hidden": np.ones(3), "average": np.ones(3), "counter": np.array(7)}
      >>> sums = {"hidden": np.ones((2, 3)), "average": np.ones((2, 3)), "counter": np.array(7)}
      >>> codebook = {"embeddings": np.ones((2, 3))}
      >>> state = {"vq_ema": codebook, "vq_ema/~/ema_cluster_size": average, "vq_ema/~/ema_dw": sums}
      >>> ema_state_from_haiku(state, decay=0.99).codebook.shape
      (3, 2)
    """
    _check.fraction("ema_state_from_haiku", "decay", decay)

    def the_only(suffix: str, leaf: str) -> Mapping[str, Any]:
        found = [module for name, module in state.items() if name.endswith(suffix) and leaf in module]
        if len(found) != 1:
            raise ValueError(
                f"ema_state_from_haiku: state must have one module *{suffix} with {leaf!r}, that of a"
                f" VectorQuantizerEMA; got {len(found)} among {sorted(state)}"
            )
        return found[0]

    counts, sums = the_only("ema_cluster_size", "hidden"), the_only("ema_dw", "hidden")
    codebook = array(the_only("", "embeddings")["embeddings"]).T
    weight = 1 - decay ** array(counts["counter"]).astype(codebook.dtype)
    return EmaState(
        codebook,
        array(counts["hidden"]),
        array(sums["hidden"]).T,
        weight,
    )


def ema_state_from_vector_quantize_pytorch(state: Mapping[str, Any]) -> EmaState:
    """The ``state_dict`` of a ``VectorQuantize`` with an EMA codebook, for :func:`ema_vector_quantizer`.

    Args:
      state: the ``state_dict()``, of tensors or arrays.

    Returns:
      The same codebook and averages; with several heads, each of which has a codebook, the state of
      ``product(ema_vector_quantizer(...), groups=heads)``.

    Gradient:
      None: it is a constant.

    Raises:
      ValueError: if the codebook and its averages are not in the state.

    Examples:
      >>> import numpy as np
      >>> state = {"_codebook.embed": np.ones((1, 3, 2)), "_codebook.embed_avg": np.ones((1, 3, 2))}
      >>> state |= {"_codebook.cluster_size": np.ones((1, 3))}
      >>> ema_state_from_vector_quantize_pytorch(state).codebook.shape
      (3, 2)
    """
    names = ("_codebook.embed", "_codebook.cluster_size", "_codebook.embed_avg")
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(
            "ema_state_from_vector_quantize_pytorch: state must be the state_dict of a VectorQuantize with an EMA"
            f" codebook; it has no {', '.join(missing)}, but {sorted(state)}"
        )
    codebook, counts, sums = (array(state[name]) for name in names)
    weight = jnp.ones(codebook.shape[:1], codebook.dtype)
    loaded = EmaState(codebook, counts, sums, weight)
    return EmaState(*(leaf[0] for leaf in loaded)) if codebook.shape[0] == 1 else loaded
