"""The loops of recurrent training steps, compiled for a TPU v5e and an NVIDIA H100: kernels in a turn, communication.

A recurrent network's time on an accelerator is mostly that of starting kernels, so their number in the body of the
forward and of the backward loop is kept in a budget, ``kernels.json``: more of them fail here, and fewer are written
there by ``python -m pytest tests/test_compile_recurrent.py`` with ``RECORD=1`` in the environment.
"""

import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks import compilers
from benchmarks.hlo import collectives, kernels, loop_bodies
from jaxlab import ordered, recurrent
from jaxlab.recurrent import LSTMCarry

BUDGET = Path(__file__).parent / "kernels.json"
PLATFORMS = ["TPU v5e", "NVIDIA H100"]
STEPS, BATCH, INPUT_DIM, HIDDEN_DIM, CHUNK_SIZE = 32, 16, 128, 256, 8
CELLS = {
    "lstm": (recurrent.lstm, 4 * HIDDEN_DIM),
    "ordered_lstm": (
        functools.partial(ordered.ordered_lstm, chunk_size=CHUNK_SIZE),
        2 * HIDDEN_DIM // CHUNK_SIZE + 4 * HIDDEN_DIM,
    ),
}


def training_step(cell, scan, weights, inputs):
    carry = LSTMCarry(*[jnp.zeros((inputs.shape[1], HIDDEN_DIM))] * 2)

    def loss(weights):
        return jnp.sum(jax.tree.leaves(scan(cell, weights, inputs, carry)[1])[0] ** 2)

    return jax.value_and_grad(loss)(weights)


def compile_step(platform: str, name: str, scan, num_devices: int) -> jax.stages.Compiled:
    """The training step, its batch spread over so many devices."""
    try:
        mesh = compilers.mesh(platform, num_devices)
    except compilers.CompilerMissing as missing:
        pytest.skip(str(missing))
    cell, width = CELLS[name]
    weights = jax.eval_shape(
        lambda key: recurrent.uniform_affine(key, input_dim=INPUT_DIM, hidden_dim=HIDDEN_DIM, num_preactivations=width),
        jax.random.key(0),
    )
    inputs = jax.ShapeDtypeStruct((STEPS, BATCH, INPUT_DIM), jnp.float32)
    weights, inputs = compilers.placed(weights, mesh), compilers.placed(inputs, mesh, None, "batch")
    return jax.jit(functools.partial(training_step, cell, scan)).lower(weights, inputs).compile()


@pytest.mark.parametrize("name", list(CELLS))
@pytest.mark.parametrize("platform", PLATFORMS)
def test_kernels_in_the_loops_stay_in_the_budget(platform, name):
    compiled = compile_step(platform, name, recurrent.scan_affine, 1)
    bodies = loop_bodies(compiled.as_text())
    assert len(bodies) == 2, "one loop forward and one backward"
    counted = {
        "forward": kernels(bodies[0]),
        "backward": kernels(bodies[1]),
        "temporary bytes": compilers.temporary_bytes(compiled),
    }
    budget = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    if os.environ.get("RECORD"):
        budget.setdefault(platform, {})[name] = counted
        BUDGET.write_text(json.dumps(budget, indent=1) + "\n")
    for part, limit in budget[platform][name].items():
        assert counted[part] <= limit, f"{part}: {counted[part]}, and the budget is {limit}"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_devices_talk_once_a_step_of_training_and_not_in_the_loop(platform):
    program = compile_step(platform, "ordered_lstm", recurrent.scan_affine, 4).as_text()
    assert set(collectives(program)) == {"all-reduce"}, "the gradient is summed over the devices, no batch is sent"
    assert not any(collectives(body) for body in loop_bodies(program))


def test_what_counts_as_a_kernel():
    """A loop of one product and some arithmetic, compiled here: the counting finds its body, and a product in it."""

    def loop(x, matrix):
        return lax.scan(lambda h, _: (jnp.tanh(h @ matrix), h), x, length=5)[1]

    program = jax.jit(loop).lower(jnp.zeros((4, 8)), jnp.zeros((8, 8))).compile().as_text()
    (body,) = loop_bodies(program)
    assert 2 <= kernels(body) <= 8
    assert kernels(program.replace(body, "")) < kernels(program)
