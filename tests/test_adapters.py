"""Distributions of distrax and numpyro: their capabilities, and the same gradients as ours on the same problems."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replicates import agrees, replicate

from jaxlab import distributions, estimators
from jaxlab.distributions import (
    Adapted,
    AdaptedEnumerable,
    AdaptedReparameterizable,
    Bernoulli,
    Categorical,
    from_distrax,
    from_numpyro,
)

with warnings.catch_warnings():
    # tensorflow_probability, which distrax reads, asks JAX for what it deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import distrax
    import numpyro.distributions as numpyro

LOC, SCALE = jnp.array([0.5, -1.0]), jnp.array([0.7, 1.2])
SHAPE, RATE = jnp.array([2.5, 3.0]), jnp.array([1.5, 2.0])
LOGITS = jnp.array([-0.5, 1.0])
CHOLESKY = jnp.array([[1.0, 0.0], [0.5, 0.8]])


@pytest.fixture(autouse=True)
def _promotion_as_the_other_libraries_need_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


DISTRAX = {
    "Normal": (lambda: distrax.Normal(LOC, SCALE), AdaptedReparameterizable),
    "Gamma": (lambda: distrax.Gamma(SHAPE, RATE), AdaptedReparameterizable),
    "Beta": (lambda: distrax.Beta(SHAPE, RATE), AdaptedReparameterizable),
    "Dirichlet": (lambda: distrax.Dirichlet(SHAPE), AdaptedReparameterizable),
    "Laplace": (lambda: distrax.Laplace(LOC, SCALE), AdaptedReparameterizable),
    "Uniform": (lambda: distrax.Uniform(LOC, LOC + 1), AdaptedReparameterizable),
    "MultivariateNormalTri": (lambda: distrax.MultivariateNormalTri(LOC, CHOLESKY), AdaptedReparameterizable),
    "Independent Normal": (lambda: distrax.Independent(distrax.Normal(LOC, SCALE), 1), AdaptedReparameterizable),
    "Transformed": (lambda: distrax.Transformed(distrax.Normal(LOC, SCALE), distrax.Tanh()), AdaptedReparameterizable),
    "Bernoulli": (lambda: distrax.Bernoulli(LOGITS), AdaptedEnumerable),
    "Categorical": (lambda: distrax.Categorical(LOGITS), AdaptedEnumerable),
    "Independent Bernoulli": (lambda: distrax.Independent(distrax.Bernoulli(LOGITS), 1), Adapted),
    "OneHotCategorical": (lambda: distrax.OneHotCategorical(LOGITS), Adapted),
    "Multinomial": (lambda: distrax.Multinomial(3, LOGITS), Adapted),
    "Mixture": (
        lambda: distrax.MixtureSameFamily(distrax.Categorical(LOGITS), distrax.Normal(LOC, SCALE)),
        Adapted,
    ),
}
NUMPYRO = {
    "Normal": (lambda: numpyro.Normal(LOC, SCALE), AdaptedReparameterizable),
    "Gamma": (lambda: numpyro.Gamma(SHAPE, RATE), AdaptedReparameterizable),
    "StudentT": (lambda: numpyro.StudentT(SHAPE, LOC, SCALE), AdaptedReparameterizable),
    "MultivariateNormal": (
        lambda: numpyro.MultivariateNormal(LOC, scale_tril=CHOLESKY),
        AdaptedReparameterizable,
    ),
    "Independent Normal": (lambda: numpyro.Normal(LOC, SCALE).to_event(1), AdaptedReparameterizable),
    "Transformed": (lambda: numpyro.LogNormal(LOC, SCALE), AdaptedReparameterizable),
    "Bernoulli": (lambda: numpyro.Bernoulli(logits=LOGITS), AdaptedEnumerable),
    "Categorical": (lambda: numpyro.Categorical(logits=LOGITS), AdaptedEnumerable),
    "Binomial": (lambda: numpyro.Binomial(3, logits=LOGITS), AdaptedEnumerable),
    "Independent Bernoulli": (lambda: numpyro.Bernoulli(logits=LOGITS).to_event(1), Adapted),
    "Poisson": (lambda: numpyro.Poisson(RATE), Adapted),
    "Mixture": (
        lambda: numpyro.MixtureSameFamily(numpyro.Categorical(logits=LOGITS), numpyro.Normal(LOC, SCALE)),
        Adapted,
    ),
}
CASES = [
    pytest.param(adapt, *case, id=f"{adapt.__name__}-{name}")
    for adapt, table in ((from_distrax, DISTRAX), (from_numpyro, NUMPYRO))
    for name, case in table.items()
]
CAPABILITIES = {
    Adapted: {"Scored"},
    AdaptedEnumerable: {"Scored", "Enumerable"},
    AdaptedReparameterizable: {"Scored", "Reparameterizable"},
}


def floats_of(tree):
    return [leaf for leaf in map(np.asarray, jax.tree.leaves(tree)) if leaf.dtype.kind == "f"]


@pytest.mark.parametrize(("adapt", "make", "kind"), CASES)
def test_each_distribution_has_the_capabilities_it_really_has(adapt, make, kind):
    theirs = make()
    adapted = adapt(theirs)
    assert type(adapted) is kind
    protocols = ["Scored", "Reparameterizable", "Relaxable", "Enumerable", "MeanValued"]
    assert {p for p in protocols if isinstance(adapted, getattr(distributions, p))} == CAPABILITIES[kind]

    def sum_of(draw):
        return lambda adapted: jnp.sum(draw(adapted, jax.random.key(0)).astype(jnp.float32))

    @jax.jit
    def draw_and_gradients():
        value = adapted.sample(jax.random.key(0))
        draws = [kind.sample, kind.reparameterize] if kind is AdaptedReparameterizable else [kind.sample]
        gradients = [jax.grad(sum_of(draw), allow_int=True)(jax.tree.map(jnp.asarray, adapted)) for draw in draws]
        return value, adapted.log_prob(value), jnp.sum(theirs.log_prob(value)), gradients

    value, log_prob, expected, gradients = draw_and_gradients()
    assert value.shape == theirs.batch_shape + theirs.event_shape
    assert log_prob.shape == ()
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)
    # No gradient goes through a sample; along the path there is one.
    assert [any(np.any(leaf != 0) for leaf in floats_of(g)) for g in gradients] == [False, True][: len(gradients)]
    if kind is AdaptedEnumerable:
        log_probs = jax.jit(jax.vmap(adapted.log_prob))(adapted.support())
        np.testing.assert_allclose(np.exp(log_probs).sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("adapt", "normal", "gamma"),
    [(from_distrax, distrax.Normal, distrax.Gamma), (from_numpyro, numpyro.Normal, numpyro.Gamma)],
)
def test_continuous_gradients_reach_the_parameters_and_are_unbiased(adapt, normal, gamma):
    def square(x):
        return jnp.sum(x**2)

    def estimates(parameters, key):
        keys = jax.random.split(key, 3)
        along_path = estimators.reparameterized(keys[0], adapt(normal(*parameters["path"])), square)
        by_score = estimators.leave_one_out(keys[1], adapt(normal(*parameters["score"])), square)
        implicit = estimators.reparameterized(keys[2], adapt(gamma(*parameters["implicit"])), square)
        return along_path + by_score + implicit

    def expectations(parameters):
        (loc, scale), (shape, rate) = parameters["path"], parameters["implicit"]
        of_normals = jnp.sum(loc**2 + scale**2) + jnp.sum(parameters["score"][0] ** 2 + parameters["score"][1] ** 2)
        return of_normals + jnp.sum(shape * (shape + 1) / rate**2)

    parameters = {"path": (LOC, SCALE), "score": (LOC, SCALE), "implicit": (SHAPE, RATE)}
    samples = replicate(lambda key: jax.grad(estimates)(parameters, key))
    expected = jax.grad(expectations)(parameters)
    for name in parameters:
        assert agrees(samples[name], expected[name])
        assert not agrees(samples[name], jax.tree.map(lambda x: 1.2 * x + 0.1, expected[name]))


@pytest.mark.parametrize(
    ("adapt", "bernoulli", "categorical"),
    [
        (from_distrax, distrax.Bernoulli, distrax.Categorical),
        (from_numpyro, lambda x: numpyro.Bernoulli(logits=x), lambda x: numpyro.Categorical(logits=x)),
    ],
)
def test_discrete_gradients_are_those_of_our_distributions(adapt, bernoulli, categorical):
    def f_of_bits(b):
        return jnp.sin(b[0] + 2.0 * b[1])

    costs = jnp.array([1.0, -2.0, 4.0])
    logits = {"bits": LOGITS, "categories": jnp.array([0.3, -0.2, 0.9])}

    def exact(logits, ours):
        key = jax.random.key(0)
        bits = Bernoulli(logits["bits"]) if ours else adapt(bernoulli(logits["bits"]))
        # A category is one-hot here, and an integer there.
        if ours:
            categories = estimators.exact(key, Categorical(logits["categories"]), lambda z: jnp.vdot(z, costs))
        else:
            categories = estimators.exact(key, adapt(categorical(logits["categories"])), lambda code: costs[code])
        return estimators.exact(key, bits, f_of_bits) + categories

    def sampled(logits, key):
        bits_key, key = jax.random.split(key)
        bits = estimators.leave_one_out(bits_key, adapt(bernoulli(logits["bits"])), f_of_bits)
        return bits + estimators.reinforce(key, adapt(categorical(logits["categories"])), lambda code: costs[code])

    expected, by_theirs = jax.jit(lambda: [jax.grad(exact)(logits, ours) for ours in (True, False)])()
    for ours, theirs in zip(jax.tree.leaves(expected), jax.tree.leaves(by_theirs), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    samples = replicate(lambda key: jax.grad(sampled)(logits, key))
    assert agrees(samples, expected)
    assert not agrees(samples, jax.tree.map(lambda x: 1.2 * x + 0.1, expected))


def test_a_batch_of_events_is_a_vmap():
    locs = jnp.stack([LOC, 2 * LOC, -LOC])

    def loss(loc, key):
        return estimators.reparameterized(key, from_numpyro(numpyro.Normal(loc, SCALE)), lambda x: jnp.sum(x))

    gradients = jax.vmap(jax.grad(loss))(locs, jax.random.split(jax.random.key(0), 3))
    assert gradients.tolist() == np.ones((3, 2)).tolist()


@pytest.mark.parametrize("adapt", [from_distrax, from_numpyro])
def test_what_is_of_another_library_is_refused(adapt):
    others = [Bernoulli(LOGITS), LOGITS, "Normal"]
    others.append(numpyro.Normal(0.0, 1.0) if adapt is from_distrax else distrax.Normal(0.0, 1.0))
    library = adapt.__name__.removeprefix("from_")
    for other in others:
        with pytest.raises(TypeError, match=f"{adapt.__name__}: distribution must be a {library} one; got"):
            adapt(other)


def test_an_estimator_that_needs_more_says_what_is_missing():
    with pytest.raises(TypeError, match="reparameterized: dist must be Reparameterizable; got Adapted"):
        estimators.reparameterized(jax.random.key(0), from_numpyro(numpyro.Poisson(RATE)), jnp.sum)
