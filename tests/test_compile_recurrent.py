"""The loops of recurrent training steps, compiled for a TPU v5e and an NVIDIA H100: kernels in a turn, communication.

A recurrent network's time on an accelerator is mostly that of starting kernels, so their number in the body of the
forward and of the backward loop is kept in a budget, ``kernels.json``: more of them fail here, and fewer are written
there by ``python -m pytest tests/test_compile_recurrent.py`` with ``RECORD=1`` in the environment.
"""

import functools
import json
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import topologies
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlab import ordered, recurrent
from jaxlab.recurrent import LSTMCarry

BUDGET = Path(__file__).parent / "kernels.json"
STEPS, BATCH, INPUT_DIM, HIDDEN_DIM, CHUNK_SIZE = 32, 16, 128, 256, 8
# What is no kernel: names for parts of memory, and the loop's own.
FREE = {"parameter", "get-tuple-element", "tuple", "constant", "bitcast", "after-all", "iota", "while", "conditional"}
# On a TPU, the start of a copy and its end are two instructions for one transfer.
FREE |= {"copy-done", "slice-done", "dynamic-slice-done", "async-done", "custom-call-done"}
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (?:\([^=]*?\)|\S+) ([\w-]+)\(", re.M)
COLLECTIVE = re.compile(r"\b(all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(-start)?\(")
CELLS = {
    "lstm": (recurrent.lstm, 4 * HIDDEN_DIM),
    "ordered_lstm": (
        functools.partial(ordered.ordered_lstm, chunk_size=CHUNK_SIZE),
        2 * HIDDEN_DIM // CHUNK_SIZE + 4 * HIDDEN_DIM,
    ),
}


def computations(program: str) -> dict[str, str]:
    """The bodies of the computations of an HLO program, by name."""
    found = {}
    for block in re.split(r"\n(?=(?:ENTRY )?%?[\w.-]+ \()", program):
        if match := re.match(r"(?:ENTRY )?%?([\w.-]+) \(", block):
            found[match[1]] = block
    return found


def loop_bodies(program: str) -> list[str]:
    parts = computations(program)
    return [parts[name] for name in re.findall(r" while\([^\n]*?body=%?([\w.-]+)", program)]


def kernels(body: str) -> int:
    return sum(opcode not in FREE for opcode in INSTRUCTION.findall(body))


def training_step(cell, scan, weights, inputs):
    carry = LSTMCarry(*[jnp.zeros((inputs.shape[1], HIDDEN_DIM))] * 2)

    def loss(weights):
        return jnp.sum(jax.tree.leaves(scan(cell, weights, inputs, carry)[1])[0] ** 2)

    return jax.value_and_grad(loss)(weights)


def compile_step(platform: str, name: str, scan, num_devices: int) -> jax.stages.Compiled:
    """The training step, its batch spread over so many devices."""
    try:
        devices = topologies.mesh(platform).devices
    except topologies.CompilerMissing as missing:
        pytest.skip(str(missing))
    mesh = Mesh(np.array(devices[:num_devices]), ("batch",))
    cell, width = CELLS[name]
    weights = jax.eval_shape(
        lambda key: recurrent.uniform_affine(key, input_dim=INPUT_DIM, hidden_dim=HIDDEN_DIM, num_preactivations=width),
        jax.random.key(0),
    )
    shared, spread = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec(None, "batch")))
    weights = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shared), weights)
    inputs = jax.ShapeDtypeStruct((STEPS, BATCH, INPUT_DIM), jnp.float32, sharding=spread)
    return jax.jit(functools.partial(training_step, cell, scan)).lower(weights, inputs).compile()


@pytest.mark.parametrize("name", list(CELLS))
@pytest.mark.parametrize("platform", list(topologies.PLATFORMS))
def test_kernels_in_the_loops_stay_in_the_budget(platform, name):
    compiled = compile_step(platform, name, recurrent.scan_affine, 1)
    bodies = loop_bodies(compiled.as_text())
    assert len(bodies) == 2, "one loop forward and one backward"
    counted = {
        "forward": kernels(bodies[0]),
        "backward": kernels(bodies[1]),
        "temporary bytes": compiled.memory_analysis().temp_size_in_bytes,
    }
    budget = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    if os.environ.get("RECORD"):
        budget.setdefault(platform, {})[name] = counted
        BUDGET.write_text(json.dumps(budget, indent=1) + "\n")
    for part, limit in budget[platform][name].items():
        assert counted[part] <= limit, f"{part}: {counted[part]}, and the budget is {limit}"


@pytest.mark.parametrize("platform", list(topologies.PLATFORMS))
def test_devices_talk_once_a_step_of_training_and_not_in_the_loop(platform):
    program = compile_step(platform, "ordered_lstm", recurrent.scan_affine, 4).as_text()
    assert COLLECTIVE.search(program), "the gradient is summed over the devices"
    assert not any(COLLECTIVE.search(body) for body in loop_bodies(program))


def test_what_counts_as_a_kernel():
    """A loop of one product and some arithmetic, compiled here: the counting finds its body, and a product in it."""

    def loop(x, matrix):
        return lax.scan(lambda h, _: (jnp.tanh(h @ matrix), h), x, length=5)[1]

    program = jax.jit(loop).lower(jnp.zeros((4, 8)), jnp.zeros((8, 8))).compile().as_text()
    (body,) = loop_bodies(program)
    assert 2 <= kernels(body) <= 8
    assert kernels(program.replace(body, "")) < kernels(program)
