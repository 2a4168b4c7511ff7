r"""The F1 of triples as a loss: expected counts of a decoder that draws, and F1 as a function of their means.

Cross entropy weighs all units alike; F1 is what is reported. Of a batch it is biased, as a function of means of few
texts: so it is taken around running means (``jaxlab.metrics.linearize``), where its gradient is unbiased.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.information_extraction.pointer import Options, object_logits, subject_logits, triples_to_subjects
from jaxlab import metrics

Means = dict[str, jax.Array]
"""Of triples that are found and true ("both"), found ("decided") and true, for each text."""
#: Its statistic is computed for a whole batch at once.
F1 = metrics.Metric(
    lambda counts, _: counts, metrics.set_f1().final, counts=False, statistic="expected counts of triples"
)


def all_pairs_of_bounds(triples: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The subjects of a text, each once: [b, m, 2], and which entries are the first of their kind, [b, m]."""
    subjects = triples[..., :2]
    same = jnp.all(subjects[:, :, None] == subjects[:, None], -1)
    first = jnp.argmax(same, 2) == jnp.arange(subjects.shape[1])[None]
    return jnp.maximum(subjects, 0), first & (triples[..., 0] >= 0)


def no_end_before(ends: jax.Array) -> jax.Array:
    """The log-probability that none of the ends before a unit is taken, from the first of the text on, [..., t]."""
    log_none = jax.nn.log_sigmoid(-ends)
    return jnp.cumsum(log_none, -1) - log_none


def expected_counts(
    weights: dict[str, Any],
    features: jax.Array,
    batch: dict[str, jax.Array],
    num_predicates: int,
    options: Options,
) -> dict[str, jax.Array]:
    r"""How many triples of the true subjects are found, how many of these are true, and how many there are, [b] each.

    Expected counts of a decoder that draws every bound, independently, by its probability: an object begins where a
    start is drawn and ends at the first end that is drawn from there on,

    .. math:: \mathbb{E}\,|\hat T| = \sum_{s, p, i} p(i)\, \Big(1 - \prod_{j \ge i} (1 - q(j))\Big), \qquad
              \mathbb{E}\,|\hat T \cap T| = \sum_{(s, p, i, j) \in T} p(i)\, q(j) \prod_{i \le k < j} (1 - q(k))

    so a mean over texts of these is unbiased, and F1 is a function of the means.
    """
    triples, length = batch["triples"], features.shape[1]
    subjects, counts = all_pairs_of_bounds(triples)
    logits = object_logits(weights, features, batch, subjects, options)
    logits = jnp.where(batch["mask"][:, None, :, None, None], logits, -1e4)
    starts, ends = (jnp.moveaxis(logits[..., side], 2, 3) for side in (0, 1))  # [b, m, p, t]
    log_none = jax.nn.log_sigmoid(-ends)
    after = jnp.flip(jnp.cumsum(jnp.flip(log_none, -1), -1), -1)
    found = jnp.sum(jax.nn.sigmoid(starts) * -jnp.expm1(after), (2, 3))
    before = no_end_before(ends)

    def of_triple(start, end, earlier, entries):
        predicate, i, j = entries[:, 2], jnp.clip(entries[:, 3], 0, length - 1), jnp.clip(entries[:, 4], 0, length - 1)
        rows = jnp.arange(len(entries))
        log_p = jax.nn.log_sigmoid(start[rows, predicate, i]) + jax.nn.log_sigmoid(end[rows, predicate, j])
        return jnp.exp(log_p + earlier[rows, predicate, j] - earlier[rows, predicate, i])

    valid = triples[..., 0] >= 0
    true = jnp.where(valid, jax.vmap(of_triple)(starts, ends, before, jnp.maximum(triples, 0)), 0)
    return {
        "both": true.sum(1),
        "decided": jnp.where(counts, found, 0).sum(1),
        "true": valid.sum(1).astype(jnp.float32),
    }


def loss(
    weights: dict[str, Any],
    features: jax.Array,
    batch: dict[str, jax.Array],
    means: Means,
    num_predicates: int,
    options: Options,
    decay: float = 0.9,
) -> tuple[jax.Array, Means]:
    """One less F1 of the triples of true subjects, around running means, and the cross entropy of subjects.

    Args:
      weights: of ``pointer.initial``.
      features: of the encoder.
      batch: of training.
      means: running means, to stand on; the batch comes into them afterwards.
      num_predicates: how many there are.
      options: of the decoder.
      decay: of the running means.

    Returns:
      The loss, and the new means.
    """
    counts = expected_counts(weights, features, batch, num_predicates, options)
    nothing = jnp.zeros(1)
    state = metrics.state_of(F1, {name: value[None] for name, value in means.items()}, nothing)
    used = batch["counts"]
    linear = metrics.linearize(F1, state)(counts, jnp.zeros_like(used), weights=used)
    logits = subject_logits(weights, features, batch, options)
    bounds = triples_to_subjects(batch["triples"], features.shape[1])
    entropy = optax.sigmoid_binary_cross_entropy(logits, bounds).sum(-1)
    inside = batch["mask"].astype(jnp.float32) * used[:, None]
    here = {name: jnp.sum(value * used) / used.sum() for name, value in counts.items()}
    mixed = {name: decay * means[name] + (1 - decay) * jax.lax.stop_gradient(here[name]) for name in means}
    return linear + jnp.sum(entropy * inside) / inside.sum(), mixed
