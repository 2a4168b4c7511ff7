"""The derivative of a scan of a cell: the cell's own in the loop, the matrix products of the weights after it."""

from collections.abc import Callable
from typing import Any

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


def with_derivative(cell: Callable, residuals: Residuals, *, reverse: bool, unroll: int) -> Callable:
    """The scan as a function of ``closed``, the values that the cell takes after carry and pre-activations, and steps.

    Below, ``before`` is the carry that a step starts from (after a reset), ``floats`` are its differentiable arrays.
    """

    def floats_of_cell(closed, before, floats, preactivations):
        after, outputs = cell(with_floats(before, floats), preactivations, *closed)
        return (floats_of(after), floats_of(outputs)), (after, outputs)

    def forward(closed, steps: Steps, keep: Residuals | None):
        def body(carry, step):
            projected, mask, reset = step
            before = carry if reset is None else choose("scan_affine", reset, steps.reset_carry, carry)
            preactivations = projected + recurrence(steps.weights, hidden_of(before))
            kept: Any = None
            if keep is Residuals.ALL:
                # The arrays of the pullback are what the derivative needs; the rest of it is the program.
                def differentiable(closed, floats, preactivations):
                    return floats_of_cell(closed, before, floats, preactivations)

                _, pull, (after, outputs) = jax.vjp(
                    differentiable, closed, floats_of(before), preactivations, has_aux=True
                )
                kept = (pull, hidden_of(before))
            else:
                after, outputs = cell(before, preactivations, *closed)
                if keep is not None:
                    kept = (before, preactivations if keep is Residuals.PRE_ACTIVATIONS else None)
            if mask is not None:
                after = choose("scan_affine", mask, after, before)
                outputs = choose("scan_affine", mask, outputs, jax.tree.map(jnp.zeros_like, outputs))
            return after, (outputs, kept)

        xs = (project(steps.weights, steps.inputs), steps.mask, steps.reset)
        carry, (outputs, kept) = lax.scan(body, steps.carry, xs, reverse=reverse, unroll=unroll)
        return (carry, outputs), kept

    @jax.custom_vjp
    def scan(closed, steps):
        return forward(closed, steps, None)[0]

    def scan_and_keep(closed, steps):
        results, kept = forward(closed, steps, residuals)
        return results, (closed, steps, kept)

    def backward(saved, cotangents):
        closed, steps, kept = saved
        weights, width = steps.weights, steps.weights.recurrent.shape[1]
        d_last, d_outputs = (floats_of(cotangent) for cotangent in cotangents)
        # Transposed once, and kept from being transposed at every step again.
        transposed = lax.optimization_barrier(weights.recurrent.T)

        def body(gradients, step):
            d_after, d_reset, d_closed = gradients
            (kept, inputs, d_outputs, mask, reset) = step
            d_moved, d_outputs = (where(mask, d, zeros(d)) for d in (d_after, d_outputs))
            if residuals is Residuals.ALL:
                pull, _ = kept
            else:
                before, preactivations = kept
                if residuals is Residuals.NONE:
                    preactivations = project(weights, inputs) + recurrence(weights, hidden_of(before))

                def differentiable(closed, floats, preactivations):
                    return floats_of_cell(closed, before, floats, preactivations)[0]

                _, pull = jax.vjp(differentiable, closed, floats_of(before), preactivations)
            d_step, d_before, d_preactivations = pull((d_moved, d_outputs))
            if mask is not None:
                d_before = [d + kept for d, kept in zip(d_before, where(mask, zeros(d_after), d_after), strict=True)]
            d_before[0] = d_before[0] + product(d_preactivations[..., -width:], transposed)
            if reset is not None:
                d_reset = [d + new for d, new in zip(d_reset, where(reset, d_before, zeros(d_before)), strict=True)]
                d_before = where(reset, zeros(d_before), d_before)
            d_closed = [d + new for d, new in zip(d_closed, d_step, strict=True)]
            return (d_before, d_reset, d_closed), d_preactivations

        inputs = steps.inputs if residuals is Residuals.NONE else None
        start = (d_last, zeros(floats_of(steps.reset_carry)), zeros(closed))
        xs = (kept, inputs, d_outputs, steps.mask, steps.reset)
        (d_carry, d_reset, d_closed), d_preactivations = lax.scan(body, start, xs, reverse=not reverse, unroll=unroll)
        hidden = kept[1] if residuals is Residuals.ALL else hidden_of(kept[0])
        d_weights, d_inputs = after_the_loop(weights, steps.inputs, hidden, d_preactivations)
        return d_closed, Steps(
            d_weights,
            d_inputs,
            cotangent_of(steps.carry, d_carry),
            cotangent_of(steps.reset_carry, d_reset),
            None,
            None,
        )

    scan.defvjp(scan_and_keep, backward)
    return scan


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
