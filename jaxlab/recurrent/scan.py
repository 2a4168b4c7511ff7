"""The scan of a cell over time, with the matrix products of its gradient taken out of the loop."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxlab.recurrent.derivative import Scan, with_derivative
from jaxlab.recurrent.masking import keep_where, reset_where
from jaxlab.recurrent.steps import Residuals, check, check_cell, hidden_of, recurrence, share_axes
from jaxlab.recurrent.weights import Affine, project

__all__ = ["scan_affine", "scan_plain"]


def scan_affine(
    cell: Callable,
    weights: Affine,
    inputs: Float[Array, "t *batch d"],
    carry: Any,
    *,
    mask: Bool[Array, "t *batch"] | None = None,
    lengths: Int[Array, "*batch"] | None = None,
    reset: Bool[Array, "t *batch"] | None = None,
    reset_carry: Any = None,
    reverse: bool = False,
    residuals: Residuals = Residuals.PRE_ACTIVATIONS,
    unroll: int = 1,
) -> tuple[Any, Any]:
    r"""Scans a cell over time; all matrix products but one a step are outside of the loop, in both directions.

    .. math:: (c_t, y_t) = \mathrm{cell}(c_{t-1}, a_t), \qquad a_t = W x_t + U h_{t-1} + b

    with :math:`h` the hidden state, **the first array of the carry**. :math:`W x` is one product over all steps
    before the loop; in the backward pass the gradients of W, U and b, and those of the inputs, are one product each
    after the loop. A plain ``jax.lax.scan`` adds up the gradient of U, a matrix, at every step.

    The values are those of :func:`scan_plain`, which has derivatives of every order and in forward mode.

    All products follow ``jax.default_matmul_precision``, forward and backward. By default a TPU rounds float32 operands
    to bfloat16 and an NVIDIA H100 to TF32, 8 and 11 significant bits: this is their speed, and enough to train with. In
    ``with jax.default_matmul_precision("highest")`` they are those of float32, as everywhere on a CPU.

    Args:
      cell: from a carry and the pre-activations of one step to the new carry and the outputs, any pytree. It may
        use other values that are differentiated; what it is given has a batch, so arithmetic that is not
        elementwise is along the last axis.
      weights: in the dtype of the matrix products; whose sums, and all that the cell sees, are in float32 (float64
        for float64).
      inputs: time first.
      carry: before the first step; any pytree, its floating-point arrays in float32 (float64 for float64 weights).
      mask: false at the steps that do not count, where inputs may be anything: the carry stays as it was, and the
        outputs are 0.
      lengths: how many first steps of each sequence count, 0 ... t; above t it is t, below 0 it is 0.
      reset: true where the carry becomes ``reset_carry`` before the step (also where that is masked).
      reset_carry: like the carry; zeros by default.
      reverse: from the last step to the first; with ``lengths``, from the last one that counts.
      residuals: what to keep for the backward pass.
      unroll: how many steps one turn of the loop does.

    Returns:
      The carry after the last step, and the outputs of all steps along a first axis of time.

    Gradient:
      Exact, in reverse mode, once; for the weights, the inputs, both carries and what else the cell uses.

    Raises:
      ValueError: if shapes or dtypes do not fit, or the cell returns another kind of carry.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab.recurrent import elman, uniform_affine
      >>> weights = uniform_affine(jax.random.key(0), input_dim=3, hidden_dim=4, num_preactivations=4)
      >>> inputs, lengths = jnp.ones((5, 2, 3)), jnp.array([5, 2])
      >>> carry, outputs = scan_affine(elman, weights, inputs, jnp.zeros((2, 4)), lengths=lengths)
      >>> outputs.shape, bool((outputs[2:, 1] == 0).all()), bool((carry[1] == outputs[1, 1]).all())
      ((5, 2, 4), True, True)

    Reference:
      Appleyard, Kocisky, Blunsom, "Optimizing Performance of Recurrent Neural Networks on GPUs", 2016 (products of
      the inputs and of the weight gradients for all steps at once). https://arxiv.org/abs/1604.01946
    """
    steps = share_axes(check("scan_affine", weights, inputs, carry, mask, lengths, reset, reset_carry))
    example = check_cell("scan_affine", cell, steps)
    # A custom derivative may not use differentiated values that are not its arguments.
    explicit, closed = jax.closure_convert(cell, steps.carry, example)
    return with_derivative(Scan(explicit, residuals, reverse, unroll))(list(closed), steps)


def scan_plain(
    cell: Callable,
    weights: Affine,
    inputs: Float[Array, "t *batch d"],
    carry: Any,
    *,
    mask: Bool[Array, "t *batch"] | None = None,
    lengths: Int[Array, "*batch"] | None = None,
    reset: Bool[Array, "t *batch"] | None = None,
    reset_carry: Any = None,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Any, Any]:
    r"""The scan of :func:`scan_affine` without a derivative of its own: for forward mode and higher derivatives.

    The input products are outside of the loop, the gradient of the recurrent weights is added up within it. All of them
    follow ``jax.default_matmul_precision``, as in :func:`scan_affine`.

    Args:
      cell: as in :func:`scan_affine`, like all that follows.
      weights: in front of the cell.
      inputs: time first.
      carry: before the first step.
      mask: false at the steps that do not count.
      lengths: how many first steps of each sequence count.
      reset: true where the carry becomes ``reset_carry``.
      reset_carry: like the carry; zeros by default.
      reverse: from the last step to the first.
      unroll: how many steps one turn of the loop does.

    Returns:
      The carry after the last step, and the outputs of all steps along a first axis of time.

    Gradient:
      Exact, in forward and reverse mode, as often as that of the cell.

    Raises:
      ValueError: if shapes or dtypes do not fit, or the cell returns another kind of carry.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab.recurrent import Affine, elman
      >>> def last(bias):
      ...     weights = Affine(jnp.ones((1, 1)), jnp.ones((1, 1)), bias)
      ...     return scan_plain(elman, weights, jnp.zeros((1, 1)), jnp.zeros(1))[0][0]
      >>> jax.hessian(last)(jnp.zeros(1)).tolist(), jax.jacfwd(last)(jnp.zeros(1)).tolist()
      ([[0.0]], [1.0])
    """
    steps = check("scan_plain", weights, inputs, carry, mask, lengths, reset, reset_carry)
    check_cell("scan_plain", cell, steps)

    def body(carry, projected):
        return cell(carry, projected + recurrence(steps.weights, hidden_of(carry)))

    xs = project(steps.weights, steps.inputs)
    if steps.mask is not None:
        body, xs = keep_where(body), (steps.mask, xs)
    if steps.reset is not None:
        body, xs = reset_where(body, steps.reset_carry), (steps.reset, xs)
    return lax.scan(body, steps.carry, xs, reverse=reverse, unroll=unroll)
