"""Scans: what is refused, and in which words."""

import re

import jax
import jax.numpy as jnp
import pytest

from jaxlab import recurrent
from jaxlab.recurrent import LSTMCarry, scan_affine, scan_plain
from jaxlab.recurrent.steps import check

WEIGHTS = recurrent.uniform_affine(jax.random.key(0), input_dim=4, hidden_dim=6, num_preactivations=24)
INPUTS, HIDDEN, FLAGS = jnp.ones((7, 3, 4)), jnp.ones((3, 6)), jnp.ones((7, 3), bool)
CARRY = LSTMCarry(HIDDEN, HIDDEN)


def bad(message, **changes):
    arguments = {"cell": recurrent.lstm, "weights": WEIGHTS, "inputs": INPUTS, "carry": CARRY}
    return pytest.param(arguments | changes, message, id=message[:40])


@pytest.mark.parametrize("scan", [scan_affine, scan_plain])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        bad("inputs must have a first axis of time and a last one of 4 features", inputs=INPUTS[..., :3]),
        bad("the first array of the carry is the hidden state, and must have shape [3, 6]", carry=HIDDEN[:2]),
        bad("the carry must be in float32 where the weights are in float32; got bfloat16",
            carry=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), CARRY)),
        bad("reset_carry must be like the carry", reset_carry=HIDDEN),
        bad("weights must be of one dtype", weights=WEIGHTS._replace(bias=jnp.zeros(24, jnp.bfloat16))),
        bad("weights.input and weights.recurrent must have at most 12 columns",
            weights=WEIGHTS._replace(bias=jnp.zeros(12))),
        bad("cell must return a pair", cell=lambda carry, a: carry.hidden),
        bad("cell must return a carry like the one it is given", cell=lambda carry, a: (carry.hidden, a)),
    ],
)  # fmt: skip
def test_bad_input(scan, arguments, message):
    with pytest.raises(ValueError, match=f"^{scan.__name__}: {re.escape(message)}"):
        scan(**arguments)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            (FLAGS[0], None, None),
            "mask must be boolean with the axes of time and batch of the inputs, [7, 3]; got bool[3]",
        ),
        ((None, None, FLAGS.astype(jnp.float32)), "reset must be boolean"),
        ((None, jnp.array([1, 2]), None), "lengths must be integers with the batch axes of the inputs, [3]"),
    ],
)
def test_bad_flags(flags, message):
    """Past jaxtyping's hook, which is on in the tests and comes first."""
    with pytest.raises(ValueError, match=f"^scan: {re.escape(message)}"):
        check("scan", WEIGHTS, INPUTS, CARRY, *flags, None)
