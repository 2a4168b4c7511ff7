"""The kernel that searches for the nearest code on NVIDIA GPUs, by interpretation where there is none.

That it finds the first minimum, with ties and with what is not finite: test_nearest_code.py. What is compiled of it for
an H100: test_compile_budgets.py.
"""

import ctypes
import functools
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from programs import needs_four_devices, operations

from jaxlab.quantize import _fused, nearest_code
from jaxlab.quantize._fused import PAIRS, depth_of, is_fusible, parts_of, search_fused

search = functools.partial(search_fused, interpret=jax.default_backend() == "cpu")


def normal(*shape, seed=0, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


def offsets_of(codebook):
    return jnp.sum(codebook.astype(jnp.float32) ** 2, -1) / 2


def exact_scores(x, codebook):
    """Of all vectors and all codes, by products in float64."""
    offsets, x, codebook = (np.asarray(part, np.float64) for part in (offsets_of(codebook), x, codebook))
    return offsets - x @ codebook.T


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=str)
@pytest.mark.parametrize("num_features", [1, 16, 64, 65, 200])
def test_codes_and_scores_are_exact_to_float32(num_features, dtype):
    """In one slice of features and in several, the last of which is not full."""
    x, codebook = normal(70, num_features, dtype=dtype), normal(150, num_features, seed=1, dtype=dtype)
    codes, minima = jax.jit(search)(x, codebook, offsets_of(codebook))
    scores = exact_scores(x, codebook)
    np.testing.assert_array_equal(codes, scores.argmin(1))
    np.testing.assert_allclose(minima, scores.min(1), atol=2e-7 * num_features, rtol=2e-6)


@pytest.mark.parametrize("largest", [1.0, 1e30])
def test_parts_of_a_number_are_its_exact_sum(largest):
    x = largest * normal(10_000) ** 3
    parts = parts_of(x)
    assert [part.dtype for part in parts] == [jnp.bfloat16] * 3
    np.testing.assert_array_equal(sum(np.asarray(part, np.float64) for part in parts), np.asarray(x, np.float64))


@pytest.mark.parametrize("num_pairs", range(3, 7))
def test_without_the_products_of_one_size_scores_are_not_those_of_float32(monkeypatch, num_pairs):
    """The three smallest of the six count, too."""
    kept = PAIRS[3][6 - num_pairs :]
    monkeypatch.setitem(_fused.PAIRS, 3, kept)
    x, codebook = normal(64, 64), normal(64, 64, seed=1)
    offsets = jnp.zeros(64)
    _, minima = search(x, codebook, offsets)
    products = np.asarray(x, np.float64)[:, None] * np.asarray(codebook, np.float64)[None]
    relative = np.max(np.abs(minima - -products.sum(-1).max(1)) / np.abs(products).sum(-1).max(1))
    assert (relative < 2**-23) == (num_pairs == 6)


def grids(function, *arguments):
    """Of each kernel in a function, traced anew: how many programs run."""
    traced = jax.make_jaxpr(lambda *arguments: function(*arguments))(*arguments)
    calls = [one.params for one in operations(traced.jaxpr) if one.primitive.name == "pallas_call"]
    return [params["grid_mapping"].grid for params in calls]


def test_larger_blocks_where_there_are_many_vectors(monkeypatch):
    """On the GPUs on which they fit; the codes are the same."""
    x, codebook = normal(300, 8), normal(40, 8, seed=1)
    arguments = x, codebook, offsets_of(codebook)
    expected = search(*arguments)
    monkeypatch.setattr(_fused, "MANY", 300)

    for here, grid in (([], (1, 5)), ([10.0], (1, 5)), ([9.0], (1, 3))):
        monkeypatch.setattr(_fused, "capabilities", lambda here=here: here)
        assert grids(search, *arguments) == [grid]
        jax.tree.map(np.testing.assert_array_equal, search(*arguments), expected)


def test_batches_of_vectors_and_of_codebooks():
    """Under one and two maps, over the vectors, over the codebooks, over both."""
    x, codebooks = normal(4, 50, 8), normal(3, 40, 8, seed=1)
    offsets = offsets_of(codebooks)
    expected = np.stack([[exact_scores(rows, book).argmin(1) for book in codebooks] for rows in x])
    vectors, books = (0, None, None), (None, 0, 0)
    one = search(x[1], codebooks[2], offsets[2])[0]
    of_vectors = jax.vmap(search, vectors)(x, codebooks[2], offsets[2])[0]
    of_books = jax.vmap(search, books)(x[1], codebooks, offsets)[0]
    of_both = jax.vmap(search)(x[:3], codebooks, offsets)[0]
    np.testing.assert_array_equal(one, expected[1, 2])
    np.testing.assert_array_equal(of_vectors, expected[:, 2])
    np.testing.assert_array_equal(of_books, expected[1])
    np.testing.assert_array_equal(of_both, expected[np.arange(3), np.arange(3)])
    np.testing.assert_array_equal(jax.vmap(jax.vmap(search, books), vectors)(x, codebooks, offsets)[0], expected)
    twice = jax.vmap(jax.vmap(search, vectors), books)(x, codebooks, offsets)[0]
    np.testing.assert_array_equal(twice, expected.swapaxes(0, 1))
    none = jax.vmap(search, vectors)(x[:0], codebooks[2], offsets[2])[0]
    assert none.shape == (0, 50)
    by_features = jax.vmap(search, (1, None, None), out_axes=(1, 0))(x.swapaxes(0, 1), codebooks[2], offsets[2])[0]
    np.testing.assert_array_equal(by_features, expected[:, 2].T)


@pytest.mark.parametrize(("limit", "value"), [("AT_ONCE", 16 * 300), ("MAXIMAL_SIZE", 16 * (50 + _fused.FILLED))])
def test_vectors_and_codebooks_that_are_too_many_are_taken_in_turn(monkeypatch, limit, value):
    """In chunks of vectors, the last not full; where one codebook is too large, there is no kernel."""
    x, codebooks = normal(2, 1000, 8), normal(2, 40, 8, seed=1)
    arguments = x, codebooks, offsets_of(codebooks)
    expected = jax.vmap(search)(*arguments)
    monkeypatch.setattr(_fused, limit, value)

    assert grids(jax.vmap(search), *arguments) == [(1, 4) if limit == "AT_ONCE" else (1, 16)]
    jax.tree.map(np.testing.assert_array_equal, jax.vmap(search)(*arguments), expected)
    flat = jax.vmap(search, (0, None, None))(x, codebooks[0], arguments[2][0])
    np.testing.assert_array_equal(flat[0][0], expected[0][0])
    if limit == "MAXIMAL_SIZE":
        assert is_fusible(1000, 50, 8, jnp.float32)
        assert not is_fusible(1000, 51, 8, jnp.float32)


@needs_four_devices
def test_vectors_spread_over_devices_stay_where_they_are():
    """Without a map over devices; and in one, of the codebook too."""
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    x, codebook = normal(400, 8), normal(64, 8, seed=1)
    arguments = x, codebook, offsets_of(codebook)
    expected = search(*arguments)[0]
    spread = jax.device_put(x, NamedSharding(mesh, P("batch")))
    compiled = jax.jit(search).lower(spread, *arguments[1:]).compile()
    codes, _ = compiled(spread, *jax.device_put(arguments[1:], NamedSharding(mesh, P())))
    np.testing.assert_array_equal(codes, expected)
    assert codes.sharding.spec == P("batch")
    assert "all-gather" not in compiled.as_text()
    mapped = jax.shard_map(search, mesh=mesh, in_specs=(P("batch"), P(), P()), out_specs=P("batch"), check_vma=False)
    np.testing.assert_array_equal(jax.jit(mapped)(*arguments)[0], expected)


def test_there_is_a_kernel_where_it_can_run(monkeypatch):
    """Compute capability 8 has matrix units for bfloat16, and is the first that its compiler knows."""
    sizes = 100, 64, 8
    monkeypatch.setattr(_fused, "capabilities", tuple)
    assert is_fusible(*sizes, jnp.float32)
    assert is_fusible(*sizes, jnp.bfloat16)
    assert not is_fusible(*sizes, jnp.float64)
    assert not any(is_fusible(*(0 if i == j else 5 for j in range(3)), jnp.float32) for i in range(3))
    for here, usable in (([], True), ([9.0], True), ([9.0, 7.5], False), ([8.0], True)):
        monkeypatch.setattr(_fused, "capabilities", lambda here=here: here)
        assert is_fusible(*sizes, jnp.float32) == usable
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    assert not is_fusible(*sizes, jnp.float32)
    assert int(nearest_code(jnp.ones((1, 8)), jnp.eye(8) + 1)[0]) == 0


class Driver:
    """Two GPUs and one that gives no answer, as NVIDIA's library tells of them."""

    def __init__(self, capabilities=((7, 5), None, (9, 0)), status=0):
        self.capabilities, self.status, self.is_open = capabilities, status, False

    def nvmlInit_v2(self):  # noqa: N802
        self.is_open = self.status == 0
        return self.status

    def nvmlShutdown(self):  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetCount_v2(self, count):  # noqa: N802
        count._obj.value = len(self.capabilities)

    def nvmlDeviceGetHandleByIndex_v2(self, number, device):  # noqa: N802
        device._obj.value = 1000 + number.value

    def nvmlDeviceGetCudaComputeCapability(self, device, major, minor):  # noqa: N802
        capability = self.capabilities[device.value - 1000]
        if capability is None:
            return 999
        major._obj.value, minor._obj.value = capability
        return 0


def test_the_driver_is_asked_for_capabilities_and_jax_is_not_started(monkeypatch):
    driver, closed = Driver(), Driver(status=9)
    asked = _fused.capabilities.__wrapped__
    for library, expected in ((driver, (7.5, 9.0)), (closed, ())):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, library=library: library)
        assert asked() == expected
        assert not library.is_open
    program = """
        import jax, jax.numpy as jnp
        from jax._src import xla_bridge
        from jaxlab.quantize import nearest_code
        x, codebook = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((5, 3), (4, 3)))
        assert jax.eval_shape(nearest_code, x, codebook).shape == (5,)
        print(xla_bridge.backends_are_initialized())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", done.stderr


@needs_four_devices
@pytest.mark.parametrize("kernel", [False, True])
def test_in_meshes_with_explicit_axes_it_is_left_to_the_compiler(kernel):
    """The kernel says nothing of shardings in types."""
    x, codebook = normal(40, 8), normal(64, 8, seed=1)
    expected = exact_scores(x, codebook).argmin(1)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        assert not is_fusible(40, 64, 8, jnp.float32)
        codes = jax.jit(functools.partial(nearest_code, kernel=kernel))(x, codebook)
    np.testing.assert_array_equal(codes, expected)


@pytest.mark.parametrize(("num_features", "depth"), [(1, 16), (17, 32), (33, 64), (64, 64), (65, 128), (130, 192)])
def test_features_are_filled_up_to_whole_slices(num_features, depth):
    assert depth_of(num_features) == depth
