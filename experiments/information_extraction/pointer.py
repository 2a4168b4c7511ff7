r"""Half pointer, half tagging: p(s | x), a start and an end of subjects; then p(o, p | s, x), those of each predicate.

.. math:: p(s, p, o \mid x) = p(s_1 \mid x)\, p(s_2 \mid x)\, p(o_1, p \mid s, x)\, p(o_2, p \mid s, x)

Each factor is a logistic function of its own at every unit, so a unit may start several subjects' objects. Trained on
drawn subjects: a start among those of the text, an end among those that follow it, which may be another subject's; so
the second part meets false subjects too, and learns that they have no objects.

Reference: Su, https://kexue.fm/archives/6671, 2019 (attention, recurrent subject, gates, prior);
https://kexue.fm/archives/7161, 2020 (conditional layer normalisation, powers).
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bert.products import attention
from experiments.information_extraction.candidates import Candidates, first_ends
from experiments.information_extraction.dgcnn import NUM_POSITIONS, around, dense, linear
from jaxlab import gradients, gumbel, recurrent

#: Of attention, of convolutions after it, and of the subject in each direction.
WIDTH, NUM_HEADS = 128, 8
#: How many vectors a subject is read as, from its first unit to its last.
NUM_STEPS = 6
#: Subjects whose objects are asked for at once.
AT_ONCE = 2


class Options(NamedTuple):
    """What can be chosen of the decoder; hashable."""

    condition: Literal["gru", "norm"] = "gru"
    """How the subject enters: read by two recurrent networks, or as scale and offset of a layer normalisation."""
    selection: Literal["teacher", "straight_through"] = "teacher"
    """Subjects to train the second part on: those of the text, or draws of the model with a gradient to it."""
    num_subjects: int = 2
    """How many are drawn for each text."""
    gates: bool = False
    """Whether probabilities are multiplied by that of a unit to bound anything, and of a predicate to occur at all."""
    powers: tuple[float, float] = (1.0, 1.0)
    """Of the probabilities of subjects and of objects."""
    prior: bool = False
    """Whether triples of the training texts are an input."""


def initial(key: jax.Array, dim: int, num_predicates: int, options: Options) -> dict[str, Any]:
    """Random weights; the biases are such that few units are taken at first."""
    keys = iter(jax.random.split(key, 24))
    plain = options.powers == (1.0, 1.0) and not options.gates
    from_text = dim if options.condition == "norm" else WIDTH
    weights: dict[str, Any] = {
        "subject": dense(next(keys), from_text, 2, -3.0 if plain else 0.0),
        "object": dense(next(keys), from_text, 2 * num_predicates, -7.0 if plain else 0.0),
    }
    if options.condition == "norm":
        nothing = jnp.zeros((2 * dim, dim))
        weights |= {
            "scale": dense(next(keys), 2 * dim, dim, 1.0)._replace(weight=nothing),
            "offset": dense(next(keys), 2 * dim, dim)._replace(weight=nothing),
        }
    else:
        for part in ("subject", "object"):
            for name in ("query", "key", "value"):
                weights[f"{part}_{name}"] = dense(next(keys), dim, WIDTH)
            weights[f"{part}_convolution"] = dense(next(keys), 3 * (dim + WIDTH), WIDTH)
        sizes = {"input_dim": dim, "hidden_dim": WIDTH, "num_preactivations": 4 * WIDTH}
        columns = {"input_columns": 3 * WIDTH, "recurrent_columns": 3 * WIDTH}
        weights["forwards"] = recurrent.uniform_affine(next(keys), **sizes, **columns)
        weights["backwards"] = recurrent.uniform_affine(next(keys), **sizes, **columns)
        weights["read"] = dense(next(keys), 2 * WIDTH, WIDTH)
        weights["distances"] = jnp.zeros((2, NUM_POSITIONS, WIDTH))
    if options.gates:
        weights["boundary"] = [dense(next(keys), dim, dim), dense(next(keys), dim, 2)]
        weights["occurs"] = [dense(next(keys), dim, dim), dense(next(keys), dim, num_predicates)]
    if options.prior:
        # About even odds for what is known: about half of what a look-up finds is true.
        weights["subject_prior"] = jnp.full((2,), 3.0)
        weights["object_prior"] = jnp.full((num_predicates, 2), 7.0)
    return weights


def triples_to_subjects(triples: jax.Array, length: int) -> jax.Array:
    """1 where a subject starts, and where one ends, [b, t, 2]; triples [b, m, 5] of -1 are none."""

    def of_text(entries: jax.Array) -> jax.Array:
        at = jnp.where(entries[:, :2] < 0, length, entries[:, :2])
        return jnp.zeros((length, 2)).at[at, jnp.arange(2)[None]].set(1, mode="drop")

    return jax.vmap(of_text)(triples)


def triples_to_objects(triples: jax.Array, subjects: jax.Array, length: int, num_predicates: int) -> jax.Array:
    """1 where an object of a predicate of the given subjects [b, k, 2] starts, and where one ends, [b, k, t, p, 2]."""

    def of_subject(entries: jax.Array, subject: jax.Array) -> jax.Array:
        is_it = jnp.all(entries[:, :2] == subject[None], 1)[:, None]
        at = jnp.where(is_it, entries[:, 3:], length)
        nothing = jnp.zeros((length, num_predicates, 2))
        return nothing.at[at, entries[:, 2:3], jnp.arange(2)[None]].set(1, mode="drop")

    return jax.vmap(jax.vmap(of_subject, (None, 0)))(triples, subjects)


def combined(logits: jax.Array, power: float, *gates: jax.Array) -> jax.Array:
    """The logit of a probability's power times those of gates."""
    if power == 1 and not gates:
        return logits
    log_p = power * jax.nn.log_sigmoid(logits) + sum(
        jnp.broadcast_to(jax.nn.log_sigmoid(g), logits.shape) for g in gates
    )
    log_p = jnp.minimum(log_p, -1e-6)
    return log_p - jnp.log(-jnp.expm1(log_p))


def self_attention(weights: dict[str, Any], part: str, features: jax.Array, mask: jax.Array) -> jax.Array:
    """What each unit takes from the others, after the features themselves."""
    query, key, value = (linear(weights[f"{part}_{name}"], features) for name in ("query", "key", "value"))
    mixed = attention(query, key, value, jnp.where(mask, 0.0, -1e9), num_heads=NUM_HEADS)
    return jnp.where(mask[..., None], jnp.concatenate([features, mixed], -1), 0)


def two_layers(layers: list[Any], x: jax.Array) -> jax.Array:
    """A layer of rectified units and a linear one."""
    return linear(layers[1], jax.nn.relu(linear(layers[0], x)))


def subject_logits(
    weights: dict[str, Any], features: jax.Array, batch: dict[str, jax.Array], options: Options
) -> jax.Array:
    """Logits of starts and ends of subjects, [b, t, 2]."""
    hidden = features
    if options.condition == "gru":
        hidden = around(self_attention(weights, "subject", features, batch["mask"]))
        hidden = jax.nn.relu(linear(weights["subject_convolution"], hidden))
    logits = linear(weights["subject"], hidden)
    if options.prior:
        known = triples_to_subjects(batch["prior"], features.shape[1])
        logits = logits + known * weights["subject_prior"].reshape(1, 1, 2)
    gates = (two_layers(weights["boundary"], features),) if options.gates else ()
    return combined(logits, options.powers[0], *gates)


def at_units(features: jax.Array, places: jax.Array) -> jax.Array:
    """The features at some places [b, ...]."""
    flat = places.reshape(places.shape[0], -1)
    found = jnp.take_along_axis(features, flat[..., None], 1)
    return found.reshape(*places.shape, features.shape[-1])


def read_subjects(weights: dict[str, Any], features: jax.Array, subjects: jax.Array) -> jax.Array:
    """The last states of two recurrent networks over a few vectors from first to last unit, [b, k, 2 width]."""
    first, last = (subjects[..., None, side].astype(jnp.float32) for side in (0, 1))
    places = first + (last - first) * jnp.linspace(0.0, 1.0, NUM_STEPS).reshape(1, 1, -1)
    below = jnp.floor(places).astype(jnp.int32)
    share = (places - below.astype(jnp.float32))[..., None]
    above = jnp.minimum(below + 1, features.shape[1] - 1)
    vectors = (1 - share) * at_units(features, below) + share * at_units(features, above)
    steps = jnp.moveaxis(vectors, 2, 0)
    start = jnp.zeros((*subjects.shape[:2], WIDTH))
    ends = [
        recurrent.scan_affine(
            recurrent.gru, weights[name], steps, start, reverse=name == "backwards", unroll=NUM_STEPS
        )[0]
        for name in ("forwards", "backwards")
    ]
    return jnp.concatenate(ends, -1)


def object_logits(
    weights: dict[str, Any],
    features: jax.Array,
    batch: dict[str, jax.Array],
    subjects: jax.Array,
    options: Options,
    ends: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """Logits of starts and ends of each predicate's objects.

    Args:
      weights: of ``initial``.
      features: of the encoder, [b, t, d].
      batch: "mask" and perhaps "prior".
      subjects: first and last unit, [b, k, 2].
      options: of the decoder.
      ends: features of first and last units [b, k, d], where they carry a gradient of their own.

    Returns:
      Logits [b, k, t, predicates, 2].
    """
    length = features.shape[1]
    if options.condition == "norm":
        first, last = ends or (at_units(features, subjects[..., 0]), at_units(features, subjects[..., 1]))
        subject = jnp.concatenate([first, last], -1)
        centred = features - features.mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + 1e-12)
        scale, offset = (linear(weights[name], subject)[:, :, None] for name in ("scale", "offset"))
        hidden = normal[:, None] * scale + offset
    else:
        own = linear(weights["object_convolution"], around(self_attention(weights, "object", features, batch["mask"])))
        subject = linear(weights["read"], read_subjects(weights, features, subjects))
        far = jnp.abs(jnp.arange(length).reshape(1, 1, -1, 1) - subjects[:, :, None])
        distant = weights["distances"][0][far[..., 0]] + weights["distances"][1][far[..., 1]]
        hidden = jax.nn.relu(own[:, None] + subject[:, :, None] + distant)
    logits = linear(weights["object"], hidden)
    logits = logits.reshape(*logits.shape[:-1], -1, 2)
    if options.prior:
        known = triples_to_objects(batch["prior"], subjects, length, logits.shape[-2])
        logits = logits + known * weights["object_prior"][None, None, None]
    if not options.gates:
        return combined(logits, options.powers[1])
    boundary = two_layers(weights["boundary"], features)[:, None, :, None]
    most = jnp.where(batch["mask"][..., None], features, -jnp.inf).max(1)
    occurs = two_layers(weights["occurs"], most)[:, None, None, :, None]
    return combined(logits, options.powers[1], boundary, occurs)


def drawn_subjects(key: jax.Array, bounds: jax.Array, number: int) -> jax.Array:
    """For each text a few starts of subjects, each with any end that follows it, [b, k, 2]; bounds [b, t, 2]."""
    first_key, last_key = jax.random.split(key)
    b, length, _ = bounds.shape
    starts, ends = (jnp.where(bounds[:, None, :, side] > 0, 0.0, -jnp.inf) for side in (0, 1))
    first = gumbel.gumbel_max(first_key, jnp.broadcast_to(starts, (b, number, length)))
    follows = jnp.arange(length).reshape(1, 1, -1) >= first[..., None]
    return jnp.stack([first, gumbel.gumbel_max(last_key, jnp.where(follows, ends, -jnp.inf))], -1)


def selected_subjects(
    key: jax.Array, logits: jax.Array, features: jax.Array, mask: jax.Array, number: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Subjects drawn from the model, and the features of their ends with a straight-through gradient to its logits."""
    length = logits.shape[1]
    first_key, last_key = jax.random.split(key)
    allowed = jnp.broadcast_to(mask[:, None], (logits.shape[0], number, length))
    places, chosen = [], []
    for side, side_key in enumerate((first_key, last_key)):
        of_side = jnp.where(allowed, jax.nn.log_sigmoid(logits[:, None, :, side]), -1e9)
        place = gumbel.gumbel_max(side_key, of_side)
        hard = jax.nn.one_hot(place, length)
        chosen.append(gradients.straight_through(hard, jax.nn.softmax(of_side)) @ features)
        places.append(place)
        allowed = allowed & (jnp.arange(length).reshape(1, 1, -1) >= place[..., None])
    return jnp.stack(places, -1), (chosen[0], chosen[1])


def losses(
    weights: dict[str, Any],
    features: jax.Array,
    batch: dict[str, jax.Array],
    key: jax.Array,
    num_predicates: int,
    options: Options,
) -> jax.Array:
    """Cross entropy of subjects and of the objects of drawn subjects, summed over the units of each text, [b]."""
    length = features.shape[1]
    bounds = triples_to_subjects(batch["triples"], length)
    of_subjects = subject_logits(weights, features, batch, options)
    loss = optax.sigmoid_binary_cross_entropy(of_subjects, bounds).sum(-1)
    if options.selection == "teacher":
        subjects, ends = drawn_subjects(key, bounds, options.num_subjects), None
        some = (bounds[..., 0].sum(1) > 0).astype(loss.dtype)[:, None]  # a text without subjects has none to draw
    else:
        subjects, ends = selected_subjects(key, of_subjects, features, batch["mask"], options.num_subjects)
        some = jnp.ones((1, 1))
    targets = triples_to_objects(batch["triples"], subjects, length, num_predicates)
    of_objects = object_logits(weights, features, batch, subjects, options, ends)
    entropy = optax.sigmoid_binary_cross_entropy(of_objects, targets).sum((3, 4)).mean(1)
    return jnp.where(batch["mask"], loss + some * entropy, 0).sum(1)


def subject_candidates(probabilities: np.ndarray, inside: np.ndarray, low: float) -> list[tuple[int, int, list[float]]]:
    """Spans that are subjects at any threshold from ``low`` on: first and last unit, and three probabilities."""
    kept = np.where(inside[:, None], probabilities, 0)
    return [entry for start in np.nonzero(kept[:, 0] > low)[0] for entry in first_ends(kept, int(start), low)]


def object_candidates(
    spans: list[tuple[int, int, list[float]]], probabilities: np.ndarray, inside: np.ndarray, low: float
) -> Candidates:
    """The triples of some subjects at any threshold from ``low`` on, from probabilities [k, t, predicates, 2]."""
    places, chances = [], []
    for (first, last, chance), found in zip(spans, probabilities, strict=True):
        kept = np.where(inside[:, None, None], found, 0)
        for start, predicate in zip(*np.nonzero(kept[..., 0] > low), strict=True):
            for begin, end, other in first_ends(kept[:, predicate], int(start), low):
                places.append((first, last, int(predicate), begin, end))
                chances.append([*chance, *other])
    return Candidates(np.array(places, np.int32).reshape(-1, 5), np.array(chances, np.float32).reshape(-1, 6))
