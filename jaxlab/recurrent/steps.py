"""The arguments of a scan: how they are checked, and the arithmetic that its two directions share."""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxlab._precision import widen
from jaxlab.recurrent.masking import expand, is_float
from jaxlab.recurrent.weights import Affine, place, product

__all__ = ["Residuals"]


class Residuals(enum.Enum):
    """What :func:`scan_affine` keeps of each step for the backward pass. The result is the same, up to rounding."""

    PRE_ACTIVATIONS = "the pre-activations and the carry; the arithmetic of the cell is done again"
    ALL = "whatever the derivative of the cell needs; nothing is done again"
    NONE = "the carry alone; the matrix products are done again too"


class Steps(NamedTuple):
    """The arguments of a scan once they are checked: floats first, then what has no derivative."""

    weights: Affine
    inputs: Float[Array, "t *batch d"]
    carry: Any
    reset_carry: Any
    mask: Bool[Array, "t *batch"] | None
    reset: Bool[Array, "t *batch"] | None


def hidden_of(carry: Any) -> Float[Array, "*batch h"]:
    return jax.tree.leaves(carry)[0]


def recurrence(weights: Affine, hidden: Float[Array, "*batch h"]) -> Float[Array, "*batch m"]:
    """What the hidden state contributes to the pre-activations."""
    return place(product(hidden, weights.recurrent), weights.bias.shape[0], last=True)


def wide_dtype(weights: Affine) -> Any:
    """The dtype of pre-activations and carry."""
    return widen(jnp.zeros((), weights.recurrent.dtype)).dtype


def check(function, weights, inputs, carry, mask, lengths, reset, reset_carry) -> Steps:
    """The arguments, with lengths as a mask and inputs that are 0 where masked; raises where they do not fit."""
    rows, columns = weights.input.shape
    batch, width = inputs.shape[1:-1], weights.bias.shape[0]
    if inputs.ndim < 2 or inputs.shape[-1] != rows:
        raise ValueError(
            f"{function}: inputs must have a first axis of time and a last one of {rows} features, the rows of"
            f" weights.input; got shape {list(inputs.shape)}"
        )
    if max(columns, weights.recurrent.shape[1]) > width:
        raise ValueError(
            f"{function}: weights.input and weights.recurrent must have at most {width} columns, the size of"
            f" weights.bias; got {columns} and {weights.recurrent.shape[1]}"
        )
    dtypes = [str(leaf.dtype) for leaf in weights]
    if len(set(dtypes)) > 1:
        raise ValueError(f"{function}: weights must be of one dtype; got {', '.join(dtypes)}")
    check_carry(function, "carry", carry, weights, batch)
    if reset_carry is None:
        reset_carry = jax.tree.map(jnp.zeros_like, carry)
    elif kinds_of(reset_carry) != kinds_of(carry):
        raise ValueError(
            f"{function}: reset_carry must be like the carry, {kinds_of(carry)}; got {kinds_of(reset_carry)}"
        )
    for name, flags, shape in (("mask", mask, inputs.shape[:-1]), ("reset", reset, inputs.shape[:-1])):
        if flags is not None and (flags.shape != shape or flags.dtype != jnp.bool_):
            raise ValueError(
                f"{function}: {name} must be boolean with the axes of time and batch of the inputs, {list(shape)};"
                f" got {flags.dtype}{list(flags.shape)}"
            )
    if lengths is not None:
        if lengths.shape != batch or not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise ValueError(
                f"{function}: lengths must be integers with the batch axes of the inputs, {list(batch)};"
                f" got {lengths.dtype}{list(lengths.shape)}"
            )
        within = lax.broadcasted_iota(lengths.dtype, inputs.shape[:-1], 0) < lengths[None]
        mask = within if mask is None else mask & within
    if mask is not None:
        inputs = jnp.where(mask[..., None], inputs, jnp.zeros((), inputs.dtype))
    return Steps(weights, inputs, carry, reset_carry, mask, reset)


def kinds_of(tree: Any) -> Any:
    """Shape and dtype of each array of a pytree: what the arrays of another one are compared with."""
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)


def check_carry(function: str, argument: str, carry: Any, weights: Affine, batch: tuple[int, ...]) -> None:
    leaves, wide = jax.tree.leaves(carry), wide_dtype(weights)
    wanted = (*batch, weights.recurrent.shape[0])
    if not leaves or leaves[0].shape != wanted:
        raise ValueError(
            f"{function}: the first array of the {argument} is the hidden state, and must have shape {list(wanted)}"
            f" (the batch axes of the inputs, the rows of weights.recurrent);"
            f" got {list(leaves[0].shape) if leaves else 'no array'}"
        )
    for leaf in leaves:
        if is_float(leaf) and leaf.dtype != wide:
            raise ValueError(
                f"{function}: the {argument} must be in {wide} where the weights are in {weights.recurrent.dtype};"
                f" got {leaf.dtype}"
            )


def check_cell(function: str, cell: Callable, steps: Steps) -> Float[Array, "*batch m"]:
    """An example of the pre-activations of one step; raises if the cell does not return what it should."""
    shape = (*steps.inputs.shape[1:-1], steps.weights.bias.shape[0])
    # Zeros, which are not computed, and not their shape alone: in a shard_map they vary as the inputs do.
    preactivations, *_ = share_axes((jnp.zeros(shape, wide_dtype(steps.weights)), steps.inputs))
    returned = jax.eval_shape(cell, steps.carry, preactivations)
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise ValueError(f"{function}: cell must return a pair, carry and outputs; got {type(returned).__name__}")
    if kinds_of(returned[0]) != kinds_of(steps.carry):
        raise ValueError(
            f"{function}: cell must return a carry like the one it is given, {kinds_of(steps.carry)};"
            f" got {kinds_of(returned[0])}"
        )
    return preactivations


def share_axes(tree: Any) -> Any:
    """In a ``shard_map``, lets all arrays vary over the mesh axes over which any of them does.

    A custom derivative wants its cotangents to vary as its arguments do; the transpose of this adds up the gradients
    of what the devices share.
    """

    def varying(leaf):
        kind = jax.typeof(leaf)
        # Its name up to jax 0.9, and after.
        return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying

    axes = frozenset().union(*map(varying, jax.tree.leaves(tree)))
    if not axes:
        return tree
    return jax.tree.map(lambda leaf: lax.pcast(leaf, tuple(axes - varying(leaf)), to="varying"), tree)


def floats_of(tree: Any) -> list[Array]:
    """The arrays of a pytree that have derivatives."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_float(leaf)]


def with_floats(tree: Any, floats: list[Array]) -> Any:
    """The pytree with these in place of the arrays that have derivatives."""
    rest = iter(floats)
    return jax.tree.map(lambda leaf: next(rest) if is_float(leaf) else leaf, tree)


def where(condition: Bool[Array, "*batch"] | None, chosen: list[Array], other: list[Array]) -> list[Array]:
    if condition is None:
        return chosen
    return [lax.select(expand(condition, one), one, two) for one, two in zip(chosen, other, strict=True)]


def zeros(arrays: list[Array]) -> list[Array]:
    return [jnp.zeros_like(array) for array in arrays]


def cotangent_of(tree: Any, floats: list[Array]) -> Any:
    """The cotangent of a pytree: these of the arrays that have derivatives, and none of the others."""
    rest = iter(floats)
    return jax.tree.map(lambda leaf: next(rest) if is_float(leaf) else None, tree)
