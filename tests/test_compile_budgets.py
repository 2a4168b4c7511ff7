"""Temporary memory and collectives of training steps and of large functions stay within what is committed.

The budgets, ``budgets.json``, are those of one device where the batch is spread over four TPU v5e or over eight NVIDIA
H100: half as much again fails, so that a change that doubles either is seen. Fewer are written there by ``python -m
pytest tests/test_compile_budgets.py`` with ``RECORD=1`` in the environment. All programs that there are stand in the
table of ``python -m benchmarks.compile``; these few show whether a matrix of all distances, pairs or steps is kept, and
whether a batch is sent around. One whose program and compiler are those of the table is not compiled again, but with
``RECORD=1``.

Planted and found, compiled for eight H100: a search in chunks of vectors that follow one another, whose batch is
gathered (memory and collectives; without the kernel), and a discrepancy of two samples by the matrix of all pairs
(memory).
"""

import json
import os
from pathlib import Path

import jax
import pytest
from compiler import tabled

from benchmarks import compile as table
from benchmarks import compile_table, compiled_functions, compiled_rows, compilers, hlo
from benchmarks.compiled_functions import FUNCTIONS
from benchmarks.compiled_steps import STEPS
from jaxlab.quantize import _fused

BUDGET = Path(__file__).parent / "budgets.json"
DEVICES = {"TPU v5e": 4, "NVIDIA H100": 8}
SEARCH = "nearest_code 8,192"
LARGE = (SEARCH, f"{SEARCH}, without kernel", "quantizer ema", "mmd 2,048", "estimator leave_one_out, 2 evaluations")
SMALL = ("VQ-VAE", "ON-LSTM language model", "BERT fine-tuning")
KERNEL = 'custom_call_target="__gpu$xla.gpu.triton"'
PROGRAMS = {function.name: function.lower for function in FUNCTIONS if function.name in LARGE}
PROGRAMS |= {step.name: step.lower for step in STEPS if step.size == "small" and step.name in SMALL}


def test_every_program_of_the_budget_is_there():
    assert set(PROGRAMS) == {*LARGE, *SMALL}
    assert {name for platform in json.loads(BUDGET.read_text()).values() for name in platform} == set(PROGRAMS)


def counted(platform, lowered):
    """Temporary bytes and collectives of a program, by its compiler or by what the table says of it."""
    fingerprint, target = compilers.fingerprint(platform, lowered), f"{platform} x {DEVICES[platform]}"
    rows = (row for row in tabled()["rows"] if row["target"] == target and "error" not in row)
    known = next((row for row in rows if row["program"] == fingerprint), None)
    return table.counted(known or hlo.summary(lowered.compile()))


@pytest.mark.parametrize("name", list(PROGRAMS))
@pytest.mark.parametrize("platform", list(DEVICES))
def test_memory_and_collectives_stay_in_the_budget(platform, name):
    try:
        mesh = compilers.mesh(platform, DEVICES[platform])
    except compilers.CompilerMissing as missing:
        pytest.skip(str(missing))
    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        found = counted(platform, PROGRAMS[name](mesh))
    budget = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    if os.environ.get("RECORD"):
        budget.setdefault(platform, {})[name] = found
        BUDGET.write_text(json.dumps(budget, indent=1) + "\n")
    beyond = table.beyond(found, budget[platform][name])
    assert not beyond, f"{name} on {DEVICES[platform]} {platform}: {beyond} (counted, allowed)"


@pytest.mark.parametrize("capabilities", [[], [9.0]], ids=str)  # of no GPU here, and of one with larger blocks
@pytest.mark.parametrize("num_devices", [1, 8])
def test_a_gpu_searches_for_codes_by_the_kernel_on_each_device_by_itself(monkeypatch, num_devices, capabilities):
    """Planted and found: a rule of sharding by which each device needs all vectors."""
    try:
        mesh = compilers.mesh("NVIDIA H100", num_devices)
    except compilers.CompilerMissing as missing:
        pytest.skip(str(missing))
    monkeypatch.setattr(_fused, "capabilities", lambda: capabilities)
    jax.clear_caches()  # in which the capability has no place
    lowered, by_compiler = (PROGRAMS[name](mesh) for name in LARGE[:2])
    program, without = lowered.compile().as_text() or "", by_compiler.compile().as_text() or ""
    assert program.count(KERNEL) == 1
    assert KERNEL not in without
    assert not hlo.collectives(program)
    flops = 2 * 32_768 * 8192 * 64 / num_devices
    assert flops < hlo.costs_of(program).flops < 1.01 * flops
    assert hlo.costs_of(program).exact_flops == flops
    assert hlo.costs_of(lowered.compiler_ir("hlo").as_hlo_text()).exact_flops == flops * num_devices
    if num_devices == 1:  # parts of some vectors at a time take 96 MiB
        many = compiled_functions.search(8192, 2**21).lower(mesh).compile()
        assert compilers.temporary_bytes(many) < 128 * 2**20


def test_a_fingerprint_is_that_of_program_and_shapes():
    """By which rows are not compiled again."""

    def of(function, size=3):
        return compilers.fingerprint("CPU", jax.jit(function).lower(jax.ShapeDtypeStruct((size,), "float32")))

    assert of(lambda x: x + 1) == of(lambda y: y + 1)
    assert len({of(lambda x: x + 1), of(lambda x: x + 2), of(lambda x: x + 1, 4)}) == 3


def test_a_row_of_the_table_that_takes_twice_as_much_is_seen():
    before = {"compiler": "one", "temporary bytes": 2**20, "collectives": {"all-reduce": 2}}
    assert table.grown(before, before | {"temporary bytes": 2**20 + 2**19}) == {}
    assert table.grown(before, before | {"temporary bytes": 2**21}) == {"temporary bytes": (2**21, 2**20)}
    gathered = before | {"collectives": {"all-reduce": 2, "all-gather": 2}}
    assert table.grown(before, gathered) == {"collectives": (4, 2)}
    assert table.grown(before, gathered | {"compiler": "another"}) == {}
    assert table.grown(before, gathered | {"arguments": "longer ones"}) == {}
    assert table.grown(before, {"compiler": "one", "error": "it cannot"}) == {}


def test_rows_at_a_large_size_are_as_large_as_their_results_and_evaluations_allow():
    rows = {row.name: row for row in compiled_rows.rows() if row.size == "large"}
    mesh = compilers.mesh("CPU", 1)

    def shapes(name):
        return compile_table.shapes_of(jax.tree.leaves(rows[name].lower(mesh).in_avals))

    assert shapes("moments.gini") == "float32[8, 65536]"
    assert shapes("distributions.Bernoulli.neighbours") == "2 x float32[8, 4096]"  # 4,096^2 numbers each
    assert shapes("distributions.PlackettLuce.support") == "float32[8, 4]"  # 4! matrices; of 16 there are too many
    assert shapes("estimators.local_expectation-Bernoulli") == "2 x float32[8, 1024]"  # at 4 x 1,025 of them


def test_rows_with_far_more_memory_than_arguments_and_results_come_first():
    def row(name, target, temporary):
        given = {"arguments": "float32[8]", "argument and result bytes": 2**24}
        return given | {"name": name, "target": target, "temporary bytes": temporary}

    rows = [
        row("a", "CPU", 2**27 + 2**20),
        row("b", "CPU", 2**28),
        row("b", "TPU v5e", 2**27 + 1),
        row("c", "CPU", 2**27),
    ]
    lines = compile_table.most_memory(rows).splitlines()[2:]
    assert lines == [
        "| b | float32[8] | 16 MiB | 256 MiB on CPU; 128 MiB on TPU v5e |",
        "| a | float32[8] | 16 MiB | 129 MiB on CPU |",
    ]
