"""What the laws promise to the bit: whatever is counted, chosen or drawn does not depend on the number of devices.

Elsewhere: codes of a codebook that is cut, ties included (test_nearest_code.py); codes and states of quantizers
(test_quantize.py); draws that are spread (test_estimators_sharded.py); runs that are killed and go on (test_runs.py).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from labelled import case

from jaxlab import estimators, metrics, quantize
from jaxlab.distributions import Bernoulli

DEVICES = (1, 2, 4)
BATCH = 8


def mesh_of(num_devices):
    return Mesh(np.array(jax.devices()[:num_devices]), ("batch",))


def spread(num_devices, tree):
    return jax.device_put(tree, NamedSharding(mesh_of(num_devices), P("batch")))


def bits(tree):
    return [(leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


HARD = metrics.multiclass(temperature=0.0)
METRICS = {
    "accuracy": metrics.accuracy(HARD),
    "f_beta": metrics.f_beta(HARD),
}


@pytest.mark.parametrize("name", METRICS)
def test_counts_of_metrics_are_those_of_one_device(name):
    """Sums of halves are exact; the rests of several devices, which are not carried, may add up to one or more.

    Planted and found: states of weights that are not halves, which differ in their rests.
    """
    metric, (logits, labels, weights) = METRICS[name], map(jnp.asarray, case(0))

    def state(num_devices, weights):
        def part(logits, labels, weights):
            return jax.lax.psum(metrics.state_of(metric, logits, labels, weights=weights), "batch")

        mapped = jax.shard_map(part, mesh=mesh_of(num_devices), in_specs=P("batch"), out_specs=P())
        return jax.jit(mapped)(*spread(num_devices, (logits, labels, weights)))

    whole = jnp.round(2 * weights)
    expected = bits(metrics.state_of(metric, logits, labels, weights=whole))
    value = bits(metrics.evaluate(metric, logits, labels, weights=weights))
    for number in DEVICES:
        assert bits(state(number, whole)) == expected
        assert bits(metrics.value_of(metric, state(number, weights))) == value


ESTIMATORS = {
    "reinforce": functools.partial(estimators.reinforce, num_samples=2),
    "leave_one_out": functools.partial(estimators.leave_one_out, num_samples=4),
    "arm": estimators.arm,
    "disarm": estimators.disarm,
    "rebar": functools.partial(estimators.rebar, temperature=0.5),
    "gumbel_softmax": functools.partial(estimators.gumbel_softmax, temperature=0.5),
    "straight_through_mean": estimators.straight_through_mean,
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_each_example_has_the_estimate_of_its_key(name):
    logits = jnp.sin(jnp.arange(BATCH * 6.0)).reshape(BATCH, 6)
    keys = jax.random.split(jax.random.key(0), BATCH)

    def one(key, logits):
        def cost(b):
            return jnp.sum((b - 0.4) ** 2 * jnp.arange(1.0, 7.0))

        return ESTIMATORS[name](key, Bernoulli(logits), cost)

    program = jax.jit(jax.vmap(jax.value_and_grad(one, 1)))
    found = [bits(program(*spread(number, (jax.random.clone(keys), logits)))) for number in DEVICES]
    assert found[1:] == found[:1] * 2


def test_codes_and_their_counts_are_those_of_one_device():
    x = jax.random.normal(jax.random.key(1), (64, 4))
    quantizer = quantize.gumbel_quantizer(num_codes=16)
    params, state = quantizer.init(jax.random.key(2), x)

    def program(x):
        out, _ = quantizer.apply(jax.random.key(3), params, state, x)
        usage = quantize.code_usage(x, out.values, out.codes, num_codes=16)
        return out.codes, usage.counts, usage.num_vectors, quantizer.encode(params, state, x)

    found = [bits(jax.jit(program)(spread(number, x))) for number in DEVICES]
    assert found[1:] == found[:1] * 2
