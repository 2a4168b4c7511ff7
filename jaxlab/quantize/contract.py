"""What a quantizer is: pure functions over explicit parameters and state; and what each claims."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxlab import _check

__all__ = ["QUANTIZERS", "Quantized", "Quantizer", "QuantizerClaims"]


class Quantized(NamedTuple):
    """What ``apply`` gives for some vectors: their stand-ins, the codes of these, and what to add to the loss."""

    values: Float[Array, "*n d"]  # in the dtype of the vectors, with a gradient for the encoder
    codes: Int[Array, "*codes"]  # -1 where there is none (outside of a mask, or a stage that was left out)
    loss: Float[Array, ""]  # in float32 at least; already weighted


@runtime_checkable
class Init(Protocol):
    """Makes parameters and state from a batch of typical vectors."""

    def __call__(
        self, key: PRNGKeyArray, sample: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Any, Any]:
        """``(params, state)``: what an optimizer trains, and what ``apply`` updates."""
        ...


@runtime_checkable
class Apply(Protocol):
    """Quantizes vectors as in training."""

    def __call__(
        self,
        key: PRNGKeyArray,
        params: Any,
        state: Any,
        x: Float[Array, "*n d"],
        *,
        mask: Bool[Array, "*n"] | None = None,
    ) -> tuple[Quantized, Any]:
        """``(quantized, state)``: made with the state that came in; the one that goes out is for the next call."""
        ...


@runtime_checkable
class Update(Protocol):
    """The part of ``apply`` that changes the state, for vectors whose codes are there already."""

    def __call__(
        self,
        key: PRNGKeyArray,
        params: Any,
        state: Any,
        x: Float[Array, "*n d"],
        codes: Int[Array, "*codes"],
        *,
        mask: Bool[Array, "*n"] | None = None,
    ) -> Any:
        """The state for the next call."""
        ...


@runtime_checkable
class Encode(Protocol):
    """The codes of vectors, as in evaluation: no randomness, nothing updated."""

    def __call__(self, params: Any, state: Any, x: Float[Array, "*n d"]) -> Int[Array, "*codes"]:
        """Integers in [0, num_codes)."""
        ...


@runtime_checkable
class Decode(Protocol):
    """The vectors that codes stand for."""

    def __call__(self, params: Any, state: Any, codes: Int[Array, "*codes"]) -> Float[Array, "*n d"]:
        """Vectors in the precision of the parameters; zero for a code of -1."""
        ...


def with_checked_key(name: str, function: Callable) -> Callable:
    """The function, which refuses as its first argument what is not one typed key."""

    @functools.wraps(function)
    def checked(key: Any, *arguments: Any, **options: Any) -> Any:
        _check.key(name, key)
        return function(key, *arguments, **options)

    return checked


@dataclass(frozen=True)
class Quantizer:
    """Four pure functions. What configures them is in their closure; what they compute with are their arguments.

    ``params`` is what an optimizer trains (empty for an EMA codebook), ``state`` is what ``apply`` updates (empty for
    a codebook trained by gradient). Both are pytrees of arrays: ``vmap`` over them trains several at once. Vectors
    lie along the last axis of ``x``, with any axes before it. A ``mask`` says which vectors count: the others are in
    no statistic and no loss, their values are 0 and their codes -1. A vector with NaN or infinity leaves no trace in
    the state; in the loss, and in :func:`~jaxlab.quantize.code_usage`, it shows.
    """

    init: Init
    apply: Apply
    encode: Encode
    decode: Decode
    num_codes: int  # of each position of ``codes``
    code_shape: tuple[int, ...] = ()  # the codes of one vector: () or (depth,), (groups,), (groups, depth)
    # The same quantizer with another rule for the choice of codes, if it has a codebook to choose from.
    reassigned: Callable[[Callable], "Quantizer"] | None = None
    update: Update | None = None  # None if ``apply`` leaves the state as it is

    def __post_init__(self):
        # Also those that draw nothing refuse what the next quantizer plugged in would choke on.
        object.__setattr__(self, "init", with_checked_key("Quantizer.init", self.init))
        object.__setattr__(self, "apply", with_checked_key("Quantizer.apply", self.apply))
        if self.update is not None:
            object.__setattr__(self, "update", with_checked_key("Quantizer.update", self.update))


@dataclass(frozen=True)
class QuantizerClaims:
    """One row of :data:`QUANTIZERS`: what a quantizer promises. The tests run over these."""

    name: str
    factory: Callable[..., Quantizer]
    small: Callable[[], Quantizer]  # an instance for vectors of 4 features
    # The value is decode(codes), bit for bit, in the dtype of x.
    exact_values: bool = True
    # Quantizing a value gives the same code.
    idempotent: bool = False
    # apply gives the codes of encode, whatever the key.
    deterministic: bool = True
    # The encoder's gradient is the upstream one, factor 1, times the loss's own.
    straight_through: bool = True
    # apply changes its state.
    stateful: bool = False
    # There are parameters for an optimizer.
    trained: bool = False


#: Every quantizer by name, in the order of the documentation.
QUANTIZERS: dict[str, QuantizerClaims] = {}


def claims(small: Callable[..., Quantizer], **promises: Any) -> Callable[[Callable], Callable]:
    """Puts a factory into :data:`QUANTIZERS` under its own name; ``small`` makes a small instance of it."""

    def decorate(factory: Callable) -> Callable:
        row = QuantizerClaims(factory.__name__, factory, lambda: small(factory), **promises)
        QUANTIZERS[row.name] = row
        return factory

    return decorate


def check_vectors(name: str, x: Any, num_features: int | None, mask: Any = None) -> None:
    """Raises unless ``x`` has ``num_features`` (at least one) and ``mask`` the shape of the axes before them."""
    if x.ndim == 0 or (num_features is not None and x.shape[-1] != num_features):
        raise ValueError(f"{name}: x must have {num_features} features along its last axis; got x {list(x.shape)}")
    if x.shape[-1] == 0:
        raise ValueError(f"{name}: x must have at least one feature; got x {list(x.shape)}")
    if mask is not None and (mask.shape != x.shape[:-1] or mask.dtype != jnp.bool_):
        raise ValueError(
            f"{name}: mask must be boolean of shape {list(x.shape[:-1])}, that of x without its features;"
            f" got {mask.dtype}{list(mask.shape)}"
        )


def flat_mask(x: Float[Array, "*n d"], mask: Bool[Array, "*n"] | None) -> Bool[Array, "m"]:
    """The mask of the vectors in a row; all of them without one."""
    if mask is not None:
        return mask.reshape(-1)
    # Hidden from the compiler, which would otherwise sum in another order than with a mask of all.
    return lax.optimization_barrier(jnp.ones(math.prod(x.shape[:-1]), bool))


def finite(x: Float[Array, "m d"]) -> Bool[Array, "m"]:
    """Which vectors may enter a statistic."""
    return jnp.all(jnp.isfinite(x), -1)


def mean_over(rows: Float[Array, "m"], mask: Bool[Array, "m"]) -> Float[Array, ""]:
    """The mean of those rows that count; 0 if none does."""
    count = jnp.maximum(jnp.sum(mask), 1).astype(rows.dtype)
    return jnp.sum(jnp.where(mask, rows, 0)) / count


def squared_error(x: Float[Array, "m d"], values: Float[Array, "m d"], mask: Bool[Array, "m"]) -> Float[Array, ""]:
    """The squared difference, averaged over features and over the vectors that count."""
    return mean_over(jnp.mean((x - values) ** 2, -1), mask)


def quantized(
    x: Float[Array, "*n d"],
    values: Float[Array, "m _"],
    codes: Int[Array, "m *code"],
    loss: Float[Array, ""],
    mask: Bool[Array, "*n"] | None,
) -> Quantized:
    """The result in the shape and dtype of ``x``, with nothing where ``mask`` is False."""
    shape = x.shape[:-1]
    values = values.astype(x.dtype).reshape(*shape, values.shape[-1])
    codes = codes.reshape(*shape, *codes.shape[1:])
    if mask is not None:
        values = jnp.where(mask[..., None], values, 0)
        codes = jnp.where(jnp.expand_dims(mask, tuple(range(mask.ndim, codes.ndim))), codes, -1)
    return Quantized(values, codes, loss)


def without_negative(values: Float[Array, "*n d"], codes: Int[Array, "*n"]) -> Float[Array, "*n d"]:
    """Values, but zero where there is no code."""
    return jnp.where((codes < 0)[..., None], 0, values)


def consume(key: PRNGKeyArray) -> None:
    """Uses up the key of a quantizer that draws nothing, so that reuse is found whichever quantizer is plugged in."""
    jax.random.split(key)


def detached(tree: Any) -> Any:
    """The same arrays as constants."""
    return jax.tree.map(lax.stop_gradient, tree)
