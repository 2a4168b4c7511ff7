"""What quantizers with a codebook have in common: choose a code, look it up, pass the gradient, update the state."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxlab._precision import widen
from jaxlab.quantize.contract import (
    Quantized,
    Quantizer,
    check_vectors,
    consume,
    detached,
    finite,
    flat_mask,
    quantized,
    squared_error,
    without_negative,
)
from jaxlab.quantize.nearest import lookup, nearest_code, unit
from jaxlab.quantize.through import GradientOperator

__all__ = ["CodeAssignment", "by_nearest_code"]


@runtime_checkable
class CodeAssignment(Protocol):
    """Chooses a code for each vector; for the option ``assign``."""

    def __call__(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "n d"],
        codebook: Float[Array, "k d"],
        *,
        axis_name: str | None = None,
    ) -> Int[Array, "n"]:
        """Integers in [0, k); ``axis_name`` is that of the axis over which the codebook is spread."""
        ...


def by_nearest_code(
    key: PRNGKeyArray, x: Float[Array, "n d"], codebook: Float[Array, "k d"], *, axis_name: str | None = None
) -> Int[Array, "n"]:
    """The nearest code of each vector: :func:`nearest_code` for the option ``assign``.

    Args:
      key: consumed; nothing is drawn.
      x: vectors.
      codebook: one code in each row.
      axis_name: of the axis over which the codebook is spread.

    Returns:
      Integers in [0, k).

    Gradient:
      None: the codes are integers.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> by_nearest_code(jax.random.key(0), jnp.array([[0.9]]), jnp.array([[0.0], [1.0]])).tolist()
      [1]
    """
    consume(key)
    return nearest_code(x, codebook, axis_name=axis_name)


@dataclass(frozen=True)
class Parts:
    """What makes one codebook quantizer differ from another."""

    name: str
    num_codes: int
    init: Callable[..., tuple[Any, Any]]
    codebook: Callable[[Any, Any], Float[Array, "k d"]]  # (params, state): the codes, with their gradient
    update: Callable[..., Any] | None  # (key, state, x, codes, counted): the state for the next call
    codebook_weight: float
    commitment_weight: float
    cosine: bool
    gradient: GradientOperator
    code_axis_name: str | None


def codebook_quantizer(parts: Parts, assign: CodeAssignment) -> Quantizer:
    """The quantizer that all of this file are: choose a code, look it up, pass the gradient, update the state."""
    name, axis = parts.name, parts.code_axis_name

    def codes_of(params, state):
        codebook = parts.codebook(params, state)
        return unit(codebook) if parts.cosine else codebook

    def vectors_of(x, codebook, mask=None):
        check_vectors(name, x, codebook.shape[1], mask)
        vectors = widen(x).reshape(-1, x.shape[-1])
        return unit(vectors) if parts.cosine else vectors

    def with_zero_first(vectors, codes):
        """All directions are alike to a zero vector: how their lengths were rounded does not choose its code."""
        return jnp.where(jnp.any(vectors != 0, -1), codes, 0) if parts.cosine else codes

    def apply(
        key: PRNGKeyArray, params: Any, state: Any, x: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Quantized, Any]:
        codebook = codes_of(params, state)
        vectors = vectors_of(x, codebook, mask)
        counts = flat_mask(x, mask)
        key_assign, key_gradient, key_update = jax.random.split(key, 3)
        fixed = lax.stop_gradient(vectors)
        codes = with_zero_first(fixed, assign(key_assign, fixed, lax.stop_gradient(codebook), axis_name=axis))
        chosen = lookup(codebook, codes, axis)
        loss = parts.commitment_weight * squared_error(vectors, lax.stop_gradient(chosen), counts)
        if parts.codebook_weight:
            loss = loss + parts.codebook_weight * squared_error(fixed, chosen, counts)
        soft = vectors.astype(x.dtype)
        values = parts.gradient(key_gradient, chosen.astype(x.dtype), soft)
        state = updated(key_update, state, fixed, codes, counts)
        return quantized(x, values, codes, loss, mask), state

    def updated(key, state, vectors, codes, counts):
        if parts.update is None:
            return detached(state)
        counted = counts & finite(vectors)
        if parts.cosine:  # a zero vector has no direction
            counted = counted & jnp.any(vectors != 0, -1)
        return detached(parts.update(key, detached(state), vectors, codes, counted))

    def update(
        key: PRNGKeyArray,
        params: Any,
        state: Any,
        x: Float[Array, "*n d"],
        codes: Int[Array, "*n"],
        *,
        mask: Bool[Array, "*n"] | None = None,
    ) -> Any:
        vectors = lax.stop_gradient(vectors_of(x, codes_of(params, state), mask))
        return updated(key, state, vectors, codes.reshape(-1), flat_mask(x, mask))

    def encode(params: Any, state: Any, x: Float[Array, "*n d"]) -> Int[Array, "*n"]:
        codebook = codes_of(params, state)
        vectors = vectors_of(x, codebook)
        return with_zero_first(vectors, nearest_code(vectors, codebook, axis_name=axis)).reshape(x.shape[:-1])

    def decode(params: Any, state: Any, codes: Int[Array, "*n"]) -> Float[Array, "*n d"]:
        return without_negative(lookup(codes_of(params, state), codes, axis), codes)

    def reassigned(assign: CodeAssignment) -> Quantizer:
        return codebook_quantizer(parts, assign)

    changing = None if parts.update is None else update
    return Quantizer(parts.init, apply, encode, decode, parts.num_codes, reassigned=reassigned, update=changing)


def check_weights(name: str, **weights: float) -> None:
    for argument, weight in weights.items():
        if isinstance(weight, (int, float)) and not weight >= 0:
            raise ValueError(f"{name}: {argument} must be at least 0; got {weight}")
