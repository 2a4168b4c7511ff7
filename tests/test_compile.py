"""The compile law: every row compiles for four TPU v5e and for four NVIDIA H100, with none of them here.

What is compiled is value and gradient of a batch of examples, spread over the four devices: each must do its part of
the batch with no communication. Costs go to ``build/compile-<platform>.json``, for one device, and from there to the
compile table (``python -m benchmarks.compile``). A row whose program and compiler are those of that table is not
compiled again, for the same is compiled alike; with ``RECORD=1`` in the environment all rows are, in minutes.

The law was tried against violations planted for it: a ``pure_callback`` in ``concrete`` (neither compiler takes it); an
intermediate value of 2 ** 20 numbers in ``moments_of``; a loop in ``gumbel_max`` that goes on until the last example of
the batch is done.
"""

import functools
import json
from pathlib import Path

import jax
import pytest
from cases import CASES, Case
from compiler import tabled
from jax.sharding import SingleDeviceSharding
from programs import batch, value_and_gradient

from benchmarks import compilers, hlo
from benchmarks.compiled_functions import FUNCTIONS, Function
from jaxlab import quantize

BATCH = 8
RECORDS = Path(__file__).parents[1] / "build"
# A row is a handful of numbers: no intermediate value of it should be larger.
MAXIMAL_TEMPORARY_BYTES = 2**20
# The loops of these keep 1.23 MiB of buffers.
BUFFERED = {f"distributions.{family}.reparameterize" for family in ("Gamma", "Beta", "Dirichlet")}
LARGER = {"TPU v5e": dict.fromkeys(BUFFERED, 3 * 2**19)}
# Rejection sampling goes on until the last draw of the batch is accepted: one bit goes around at each turn.
REJECTION = {
    f"distributions.{family}.{draw}"
    for family in ("Gamma", "Beta", "Dirichlet")
    for draw in ("sample", "reparameterize")
}
COUNTS = {"distributions.Poisson.sample", "distributions.Poisson.weak_derivatives"}
# Blocks are split until those of every example are whole: likewise one bit.
SPLITTING = {"smooth.isotonic", "smooth.rank", "smooth.sort", "smooth.spearman"}
COMMUNICATING = {
    "TPU v5e": {*REJECTION, *COUNTS, *SPLITTING},
    # XLA's partitioner for GPUs gathers the results of a top-k of each example.
    "NVIDIA H100": {*REJECTION, *COUNTS, *SPLITTING, "gumbel.gumbel_top_k"},
}
# Those of ``compilers.PLATFORMS`` that the law is about: the newer TPU has the compiler of the older.
PLATFORMS = ("TPU v5e", "NVIDIA H100")


@pytest.fixture(scope="module", params=PLATFORMS)
def platform(request):
    try:
        compilers.mesh(request.param)
    except compilers.CompilerMissing as missing:
        pytest.skip(str(missing))
    return request.param


ROWS = [case for case in CASES if case.data]


@pytest.fixture(scope="module")
def record(platform):
    """The costs of the rows on one platform, by label: platforms may be compiled for in processes of their own.

    A run of some rows leaves the record of the last whole one as it is.
    """
    costs = {}
    yield costs
    if len(costs) < len(ROWS):
        return
    RECORDS.mkdir(exist_ok=True)
    content = {"jax": jax.__version__, "devices": 4, "batch": BATCH, "platform": platform, "costs": costs}
    name = platform.lower().replace(" ", "-")
    (RECORDS / f"compile-{name}.json").write_text(json.dumps(content, indent=2) + "\n")


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.label)
def test_row_compiles(platform: str, case: Case, record):
    arguments = jax.random.split(jax.random.key(0), BATCH), batch(case, BATCH)
    program = jax.vmap(functools.partial(value_and_gradient, case))
    lowered = compilers.lowered_on(compilers.mesh(platform), program, *arguments)
    fingerprint = compilers.fingerprint(platform, lowered)
    costs = tabled()["law"].get(platform, {"costs": {}})["costs"].get(case.label, {})
    if costs.get("program") != fingerprint:
        costs = {"program": fingerprint, **hlo.summary(lowered.compile())}
    record[case.label] = costs
    assert costs["temporary bytes"] <= LARGER.get(platform, {}).get(case.label, MAXIMAL_TEMPORARY_BYTES)
    assert bool(costs["collectives"]) == (case.label in COMMUNICATING[platform])


TRAINING_STEP_BYTES = 64 * 2**20


@pytest.mark.parametrize("num_codes", [512, 8192])
def test_training_step_of_a_quantizer_keeps_its_memory(platform: str, num_codes: int):
    """32,768 vectors of 64 features on one device: the matrix of their distances to 8,192 codes has 1,024 MiB."""
    device = compilers.devices(platform)[0]
    quantizer = quantize.ema_vector_quantizer(num_codes=num_codes)

    def loss(x, state, key):
        out, state = quantizer.apply(key, (), state, x)
        return (out.values**2).mean() + out.loss, (out.codes, state)

    x = jax.ShapeDtypeStruct((32_768, 64), jax.numpy.float32)
    _, state = jax.eval_shape(quantizer.init, jax.random.key(0), x)
    arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=SingleDeviceSharding(device)),
        (x, state, jax.random.key(0)),
    )
    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*arguments).compile()
    assert compilers.temporary_bytes(compiled) <= TRAINING_STEP_BYTES


@pytest.mark.parametrize("name", ["quantizer ema", "quantizer gradient", "code_usage"])
def test_a_tpu_scatters_nothing_to_codes(platform: str, name: str):
    """It would do so one after another. Planted and found: the gradient that a look-up has by itself."""
    vectors, codes = (jax.ShapeDtypeStruct((8192, *rest), kind) for rest, kind in (((64,), "float32"), ((), "int32")))
    usage = Function(
        "code_usage",
        functools.partial(quantize.code_usage, num_codes=1024),
        (vectors, vectors, codes),
        (0, 0, 0),
    )
    (function,) = (function for function in (*FUNCTIONS, usage) if function.name == name)
    program = function.lower(compilers.mesh(platform, 1)).compile().as_text() or ""
    assert (" scatter(" in program) == (platform == "NVIDIA H100")
