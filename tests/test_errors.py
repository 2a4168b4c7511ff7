"""Bad input: an error that names the function, the argument, what it got and what is allowed.

Each was tried against a violation that was planted for it: the check of the key left out of ``jit`` and of
``estimator``; a function that does not consume its key; the checks of ``temperature``, ``decay`` and ``num_samples``
left out; an f of vectors summed, and one of integers accepted; ``same_shape`` that lets one number stand beside a
vector; the error for a missing capability without the estimators that fit.
"""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from cases import CASES, Case
from programs import example, program

from jaxlab import distributions, estimators, gumbel, moments
from jaxlab.distributions import Bernoulli, Categorical, MultivariateNormal, Normal, PlackettLuce, Poisson

TABLES = (estimators.ESTIMATORS, estimators.BOUNDS)
ESTIMATORS = {name: row for table in TABLES for name, row in table.items()}
THREE = jnp.ones(3)

# What each distribution can do, and what each capability takes, spelled out: the library finds both by itself.
SCORED, RELAXED = {"sample", "log_prob"}, {"perturb", "soften", "harden"}
FLIPPED = {"mean", "neighbours", "neighbour_changes", "site_costs", "covariance_product"}
CONDITIONED = {"perturb_given", "condition"}
EVENLY_CONDITIONED = CONDITIONED | {"perturb_given_evenly"}
DISCRETE = SCORED | RELAXED | FLIPPED | CONDITIONED | {"support"}
CAPABLE = (
    (Bernoulli(THREE), DISCRETE | EVENLY_CONDITIONED | {"Bernoulli"}),
    (Categorical(jnp.ones((2, 3))), DISCRETE | {"Categorical"}),
    (Normal(THREE, THREE), SCORED | {"mean", "reparameterize", "antithetic", "weak_derivatives", "Normal"}),
    (Poisson(THREE), SCORED | {"mean", "weak_derivatives", "Poisson"}),
)
TAKES = {
    "Scored": SCORED,
    "Reparameterizable": {"reparameterize"},
    "ScoredPath": SCORED | {"reparameterize"},
    "Relaxable": RELAXED,
    "Antithetic": {"reparameterize", "antithetic"},
    "WeaklyDifferentiable": SCORED | {"weak_derivatives"},
    "Conditionable": SCORED | RELAXED | CONDITIONED,
    "Flippable": SCORED | RELAXED | FLIPPED,
    "Enumerable": SCORED | {"support"},
    "MeanValued": SCORED | {"mean"},
    # One family and no other: its parameters enter the estimator's formula.
    "Bernoulli": {"Bernoulli"},
    "Categorical": {"Categorical"},
    "Normal": {"Normal"},
    "Poisson": {"Poisson"},
}
TWO_PARAMETERS = ("Normal", "Logistic", "Gumbel", "Laplace", "Gamma", "Beta")
ONE_PARAMETER = ("Exponential", "Dirichlet", "Bernoulli", "Categorical", "Poisson")


def over(cases):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.label) for case in cases])


def named(value):
    return getattr(value, "name", type(value).__name__)


def with_argument(name: str):
    return over(case for case in CASES if name in case.arguments)


def refuses(error: type, message: str, case: Case, key: jax.Array | None = None, **arguments):
    """Asserts that the row, with these arguments in place of its own, raises this for the function it is about."""
    # A distribution's adapter and an estimator with a state may leave the check to what they are made of.
    method = case.name.rpartition(".")[2]
    method = r"Quantizer\.apply" if is_quantizer(case) and not arguments else method
    name = r"[\w.]+" if method.startswith("from_") or "decay" in arguments else rf"([\w]+\.)?{method}"
    key = jax.random.key(0) if key is None else key
    with pytest.raises(error, match=f"^{name}: {message}"):
        case.call(key, {**example(case), **arguments})


def is_quantizer(case: Case) -> bool:
    return case.name.startswith("quantize.") and "params" in case.arguments


# A rule of a quantizer is given a key whether or not it draws anything; `apply` has looked at it.
@over(case for case in CASES if case.random and not case.name.startswith("quantize.by_"))
def test_key_must_be_one_typed_key(case: Case):
    refuses(TypeError, r"key must be a typed key, made by .*; got uint32\[2\]", case, jax.random.PRNGKey(0))
    if not case.name.startswith(("distributions.Adapted", "distributions.from_")):  # there jaxtyping's hook comes first
        refuses(TypeError, r"key must be a typed key, made by .*; got int", case, 0)
        keys = jax.random.split(jax.random.key(0))
        refuses(ValueError, r"key must be one key of shape \(\); got keys of shape \(2,\)", case, keys)


@over(case for case in CASES if case.random and case.name != "estimators.exact")
def test_key_is_consumed(case: Case):
    """JAX finds a key that is used twice (the whole suite runs with that check), if the function consumes it at all."""
    key = jax.random.key(0)
    program(case)(key, example(case))
    with pytest.raises(jax.errors.KeyReuseError):
        program(case)(key, example(case))


def is_hard_at_zero(case: Case) -> bool:
    return case.name.startswith(("smooth.", "metrics."))


@over(case for case in CASES if "temperature" in case.arguments and is_hard_at_zero(case))
@pytest.mark.parametrize("temperature", [-1.0, float("nan")])
def test_temperature_must_not_be_negative(case: Case, temperature):
    refuses(ValueError, f"temperature must not be negative; got {temperature}", case, temperature=temperature)


@over(case for case in CASES if "temperature" in case.arguments and not is_hard_at_zero(case))
@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(case: Case, temperature):
    refuses(ValueError, f"temperature must be greater than 0; got {temperature}", case, temperature=temperature)


@with_argument("decay")
@pytest.mark.parametrize("decay", [-0.5, 1.0, float("nan")])
def test_decay_must_be_a_fraction(case: Case, decay):
    refuses(ValueError, f"decay must be at least 0 and less than 1; got {decay}", case, decay=decay)


COUNTS = {"num_samples", "num_iterations"}
FEWEST = {"quantize.kmeans": 0}  # the starting points alone


@over(case for case in CASES if COUNTS & set(case.arguments))
def test_count_must_be_large_enough(case: Case):
    (count,) = COUNTS & set(case.arguments)
    row = ESTIMATORS.get(case.name.removeprefix("estimators."))
    least = row.minimal_num_samples if row else FEWEST.get(case.name, 1)
    refuses(ValueError, f"{count} must be at least {least}; got {least - 1}", case, **{count: least - 1})
    if row:  # elsewhere jaxtyping's hook speaks first
        refuses(TypeError, f"{count} must be a Python integer; got float", case, **{count: 2.0})


def call(row: estimators.Estimator, dist, f, **options):
    state = [row.initial_state()] if row.initial_state else []
    return row.estimate(jax.random.key(0), dist, f, *state, **options)


def fitting(row: estimators.Estimator):
    return next(dist for dist, methods in CAPABLE if TAKES[row.needs.__name__] <= methods)


@pytest.mark.parametrize("row", ESTIMATORS.values(), ids=named)
@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: x, ValueError, r"f must return one scalar, of shape \(\), for one draw; got shape \("),
        (jnp.argmax, TypeError, "f must return a floating-point scalar; got int32"),
        (lambda x: "cost", TypeError, r"f must return one scalar .*; got str"),
        (lambda x: None, TypeError, r"f must return one scalar .*; got NoneType"),
        (lambda x: (jnp.sum(x), x), TypeError, r"f must return one scalar .*has_aux=True.*; got tuple"),
        ("f", TypeError, "f must be a function of one draw; got str"),
    ],
    ids=["vector", "integer", "string", "nothing", "pair", "no function"],
)
def test_f_must_return_a_scalar(row, f, error, message):
    message = message.replace("f must", "log_joint must" if row.name in estimators.BOUNDS else "f must", 1)
    with pytest.raises(error, match=f"^{row.name}: {message}"):
        jax.eval_shape(lambda: call(row, fitting(row), f))  # refused where it is traced


@pytest.mark.parametrize("row", ESTIMATORS.values(), ids=named)
def test_f_must_return_a_pair_where_it_has_auxiliary_values(row):
    with pytest.raises(
        TypeError, match=rf"^{row.name}: (f|log_joint) must return \(scalar, aux\) when has_aux is True; got"
    ):
        jax.eval_shape(lambda: call(row, fitting(row), jnp.sum, has_aux=True))


@pytest.mark.parametrize("row", ESTIMATORS.values(), ids=named)
@pytest.mark.parametrize(("dist", "methods"), CAPABLE, ids=[named(dist) for dist, _ in CAPABLE])
def test_missing_capability_is_named(row, dist, methods):
    takes = TAKES[row.needs.__name__]
    if takes <= methods:
        assert jax.tree.leaves(jax.eval_shape(lambda: call(row, dist, jnp.sum)))[0].shape == ()
        return
    (table,) = (table for table in TABLES if row.name in table)
    fitting_rows = (other.name for other in table.values() if TAKES[other.needs.__name__] <= methods)
    lacks = "" if row.needs.__name__ in takes else f", which has no {', '.join(sorted(takes - methods))}"
    message = (
        f"{row.name}: dist must be {row.needs.__name__}; got {type(dist).__name__}{lacks}."
        f" Estimators for it: {', '.join(fitting_rows) or 'none'}"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        call(row, dist, jnp.sum)


def refuses_shapes(function, *arguments):
    """Asserts that the function says that its shapes differ, and which they are."""
    with pytest.raises(ValueError, match=r"^[\w.]+: .*must have the same shape; got \w+ \[.*\], \w+ \["):
        function(*arguments)


@pytest.mark.parametrize("name", [*TWO_PARAMETERS, *ONE_PARAMETER, "MultivariateNormal"])
@pytest.mark.parametrize("method", ["log_prob", "soften", "harden"])
def test_value_of_another_shape_is_refused(name: str, method: str):
    """Of shapes that NumPy's rules would broadcast; those of jaxlab do not."""
    dist = getattr(distributions, name)(*[THREE] * (1 if name in ONE_PARAMETER else 2))
    if hasattr(dist, method):
        refuses_shapes(getattr(dist, method), jnp.ones(1))
        # Where the annotation fixes the rank, jaxtyping's hook, which this suite has on, speaks first.
        if name != "MultivariateNormal":
            refuses_shapes(getattr(dist, method), jnp.ones((1, 3)))
            refuses_shapes(getattr(dist, method), jnp.ones((2, 3)))


@pytest.mark.parametrize("name", TWO_PARAMETERS)
@pytest.mark.parametrize("other", [jnp.ones(()), jnp.ones(1), jnp.ones((1, 3))], ids=lambda other: str(other.shape))
def test_parameters_of_different_shapes_are_refused(name: str, other: jax.Array):
    for dist in (getattr(distributions, name)(THREE, other), getattr(distributions, name)(other, THREE)):
        refuses_shapes(dist.sample, jax.random.key(0))
        refuses_shapes(dist.reparameterize, jax.random.key(0))
        refuses_shapes(dist.log_prob, THREE)
        if name not in ("Normal", "Logistic", "Laplace"):  # whose mean is one parameter, alone
            refuses_shapes(dist.mean)


@pytest.mark.parametrize("scale", [jnp.ones(2), jnp.ones((3, 2)), jnp.ones(())])
def test_multivariate_scale_must_fit(scale):
    message = r"MultivariateNormal: loc must be \[d\] and scale \[d\] or \[d, d\]; got loc \[3\], scale \["
    for method, argument in (("sample", jax.random.key(0)), ("log_prob", THREE)):
        with pytest.raises(ValueError, match=message):
            getattr(MultivariateNormal(THREE, scale), method)(argument)


BITS, FEW, MORE = Bernoulli(THREE), moments.moments_of(jnp.ones((2, 1))), moments.moments_of(jnp.ones((2, 3)))


@pytest.mark.parametrize(
    ("message", "function"),
    [
        ("gumbel_max: axis must be an axis of logits, .*; got 1", lambda key: gumbel.gumbel_max(key, THREE, axis=1)),
        ("concrete: axis must be an axis of logits, .*; got -2", lambda key: gumbel.concrete(key, THREE, axis=-2)),
        (r"concrete: logits must not be empty along axis -1; .*\[0\]", lambda key: gumbel.concrete(key, THREE[:0])),
        ("gumbel_top_k: .* at most .*, 3; got 4", lambda key: gumbel.gumbel_top_k(key, THREE, num_samples=4)),
        (r"Bernoulli.support: .* at most 2\*\*20 .*2\*\*21", lambda key: Bernoulli(jnp.zeros(21)).support()),
        # Numbers of states with more digits than Python prints.
        (r"Bernoulli.support: .* at most 2\*\*20 .*2\*\*65536", lambda key: Bernoulli(jnp.zeros(2**16)).support()),
        (r"PlackettLuce.support: .* at most 2\*\*20 .*65536!", lambda key: PlackettLuce(jnp.zeros(2**16)).support()),
        ("exact: chunk_size .* 1; got 0", lambda key: estimators.exact(key, BITS, jnp.sum, chunk_size=0)),
        (
            "local_expectation: chunk_size .* 1; got 0",
            lambda key: estimators.local_expectation(key, BITS, jnp.sum, chunk_size=0),
        ),
        (
            "measure_valued: chunk_size .* 1; got 0",
            lambda key: estimators.measure_valued(key, Normal(THREE, jnp.ones(3)), jnp.sum, chunk_size=0),
        ),
        (r"Moments.merge: .* same shape; got self \[1\], other \[3\]", lambda key: FEW.merge(MORE)),
        (r"Moments.z_score: .* same shape; got mean \[3\], expected \[1\]", lambda key: MORE.z_score(jnp.ones(1))),
        ("MovingAverage.update: .* same shape", lambda key: moments.moving_average(shape=(3,)).update(jnp.ones(1))),
    ],
)
def test_sizes_and_shapes(message: str, function):
    with pytest.raises(ValueError, match=f"^{message}"):
        function(jax.random.key(0))


def test_shapes_are_refused_without_the_import_hook_too():
    """Users run without the hook of jaxtyping, whose errors come first in this suite."""
    program = """
import jax, jax.numpy as jnp
from jaxlab import estimators, gradients, gumbel
from jaxlab.distributions import Bernoulli, MultivariateNormal
key, three = jax.random.key(0), jnp.ones(3)
for function in (
    lambda: estimators.reinforce(key, Bernoulli(three), jnp.sum, baseline=three),
    lambda: gradients.straight_through(three, jnp.ones(1)),
    lambda: gumbel.conditional_gumbel(key, three, jnp.array([0])),
    lambda: MultivariateNormal(three, three).log_prob(jnp.ones((1, 3))),
):
    try:
        function()
    except ValueError as error:
        print(str(error).partition(":")[0])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    expected = ["reinforce", "straight_through", "conditional_gumbel", "MultivariateNormal.log_prob"]
    assert run.stdout.split() == expected
