"""The derivative of a scan of a cell: the cell's own in the loop, the matrix products of the weights after it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxlab.recurrent.masking import choose
from jaxlab.recurrent.steps import (
    Residuals,
    Steps,
    cotangent_of,
    floats_of,
    hidden_of,
    recurrence,
    where,
    with_floats,
    zeros,
)
from jaxlab.recurrent.weights import Affine, gradient_of_product, product, project

__all__ = []


class Scan(NamedTuple):
    """What a scan is beside its arguments.

    ``cell`` takes, after carry and pre-activations, what ``closed`` stands for below: the values that it closes over.
    """

    cell: Callable
    residuals: Residuals
    reverse: bool
    unroll: int


def with_derivative(scan: Scan) -> Callable:
    """The scan as a function of the values that the cell closes over, and of the steps."""

    @jax.custom_vjp
    def run(closed, steps):
        return forward(scan, closed, steps, None)[0]

    def run_and_keep(closed, steps):
        results, kept = forward(scan, closed, steps, scan.residuals)
        return results, (closed, steps, kept)

    run.defvjp(run_and_keep, lambda saved, cotangents: backward(scan, saved, cotangents))
    return run


def floats_of_cell(cell: Callable, before: Any, closed: Any, floats: list[Array], preactivations: Array) -> Any:
    """The differentiable arrays of the cell's results, as a function of those of its arguments; then all results."""
    after, outputs = cell(with_floats(before, floats), preactivations, *closed)
    return (floats_of(after), floats_of(outputs)), (after, outputs)


def forward(scan: Scan, closed: Any, steps: Steps, keep: Residuals | None) -> tuple[Any, Any]:
    """The last carry and the outputs; and what is kept of each step.

    Kept are, by policy, the pullback of the cell and the hidden state, or the carry that the step starts from (after
    a reset); beside it the pre-activations of all steps or None.
    """
    projected = project(steps.weights, steps.inputs)
    # The pre-activations that are kept take the place of what they were computed from: one large array, not two. Each
    # row is read a step ahead, for to read and write a row in one step costs a copy of all of them.
    in_place = keep is Residuals.PRE_ACTIVATIONS and len(projected) > 0

    def body(state, step):
        (carry, row, grid), (time, projected, mask, reset) = state, step
        before = carry if reset is None else choose("scan_affine", reset, steps.reset_carry, carry)
        preactivations = (row if in_place else projected) + recurrence(steps.weights, hidden_of(before))
        if keep is Residuals.ALL:
            # The arrays of the pullback are what the derivative needs; the rest of it is the program.
            differentiable = functools.partial(floats_of_cell, scan.cell, before)
            floats = floats_of(before)
            _, pull, (after, outputs) = jax.vjp(differentiable, closed, floats, preactivations, has_aux=True)
            kept: Any = (pull, hidden_of(before))
        else:
            after, outputs = scan.cell(before, preactivations, *closed)
            kept = None if keep is None else before
        if in_place:
            grid = lax.dynamic_update_index_in_dim(grid, preactivations, time, 0, allow_negative_indices=False)
            row = row_of(grid, time + (-1 if scan.reverse else 1))
        if mask is not None:
            after = choose("scan_affine", mask, after, before)
            outputs = choose("scan_affine", mask, outputs, jax.tree.map(jnp.zeros_like, outputs))
        return (after, row, grid), (outputs, kept)

    first = projected[-1 if scan.reverse else 0] if in_place else None
    start = (steps.carry, first, projected if in_place else None)
    xs = (jnp.arange(len(projected)), None if in_place else projected, steps.mask, steps.reset)
    (carry, _, grid), (outputs, kept) = lax.scan(body, start, xs, reverse=scan.reverse, unroll=scan.unroll)
    return (carry, outputs), (kept, grid)


def backward(scan: Scan, saved: Any, cotangents: Any) -> tuple[Any, Steps]:
    """The cotangents of what the cell closes over and of the steps."""
    closed, steps, (kept, grid) = saved
    weights, width = steps.weights, steps.weights.recurrent.shape[1]
    d_last, d_outputs = (floats_of(cotangent) for cotangent in cotangents)
    # Transposed once, and kept from being transposed at every step again.
    transposed = lax.optimization_barrier(weights.recurrent.T)
    in_place = grid is not None  # then the gradients of the pre-activations take their place

    def pull_of(kept, grid, time, inputs):
        if scan.residuals is Residuals.ALL:
            return kept[0]
        if in_place:
            preactivations = row_of(grid, time)
        else:
            preactivations = project(weights, inputs) + recurrence(weights, hidden_of(kept))
        differentiable = functools.partial(floats_of_cell, scan.cell, kept)
        return jax.vjp(differentiable, closed, floats_of(kept), preactivations, has_aux=True)[1]

    def body(state, step):
        (d_after, d_reset, d_closed, grid), (time, kept, inputs, d_outputs, mask, reset) = state, step
        d_moved, d_outputs = (where(mask, d, zeros(d)) for d in (d_after, d_outputs))
        d_step, d_before, d_preactivations = pull_of(kept, grid, time, inputs)((d_moved, d_outputs))
        if mask is not None:
            d_before = [d + kept for d, kept in zip(d_before, where(mask, zeros(d_after), d_after), strict=True)]
        d_before[0] = d_before[0] + product(d_preactivations[..., -width:], transposed)
        if reset is not None:
            d_reset = [d + new for d, new in zip(d_reset, where(reset, d_before, zeros(d_before)), strict=True)]
            d_before = where(reset, zeros(d_before), d_before)
        d_closed = [d + new for d, new in zip(d_closed, d_step, strict=True)]
        if in_place:
            grid = lax.dynamic_update_index_in_dim(grid, d_preactivations, time, 0, allow_negative_indices=False)
        return (d_before, d_reset, d_closed, grid), None if in_place else d_preactivations

    start = (d_last, zeros(floats_of(steps.reset_carry)), zeros(closed), grid)
    # Without a step no pre-activations are kept, and the loop, which never runs, computes them again.
    inputs = None if in_place or scan.residuals is Residuals.ALL else steps.inputs
    xs = (jnp.arange(len(steps.inputs)), kept, inputs, d_outputs, steps.mask, steps.reset)
    state, rows = lax.scan(body, start, xs, reverse=not scan.reverse, unroll=scan.unroll)
    d_carry, d_reset, d_closed, grid = state
    hidden = kept[1] if scan.residuals is Residuals.ALL else hidden_of(kept)
    d_preactivations: Any = grid if in_place else rows
    d_weights, d_inputs = after_the_loop(weights, steps.inputs, hidden, d_preactivations)
    d_carries = cotangent_of(steps.carry, d_carry), cotangent_of(steps.reset_carry, d_reset)
    return d_closed, Steps(d_weights, d_inputs, *d_carries, None, None)


def row_of(grid: Array, time: Array) -> Array:
    """The pre-activations of one step; those of the nearest one where there is no such step."""
    return lax.dynamic_index_in_dim(grid, time, keepdims=False, allow_negative_indices=False)


def after_the_loop(weights: Affine, inputs: Array, hidden: Array, d_preactivations: Array) -> tuple[Affine, Array]:
    """The gradients of the weights and of the inputs, one product each over all steps and the batch."""
    from_inputs = d_preactivations[..., : weights.input.shape[1]]
    from_hidden = d_preactivations[..., -weights.recurrent.shape[1] :]
    d_weights = Affine(
        gradient_of_product(inputs, from_inputs, weights.input),
        gradient_of_product(hidden, from_hidden, weights.recurrent),
        jnp.sum(d_preactivations, range(d_preactivations.ndim - 1)).astype(weights.bias.dtype),
    )
    return d_weights, product(from_inputs, weights.input.T).astype(inputs.dtype)
