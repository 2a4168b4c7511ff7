"""Metrics of predicted token sequences: expected n-gram matches, common subsequences, edits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, ScalarLike

from jaxlab import _check, smooth
from jaxlab._precision import widen
from jaxlab.metrics.decisions import ratio
from jaxlab.metrics.metric import Metric

__all__ = ["bleu", "rouge_l", "token_error_rate"]

Target = tuple[Int[Array, "m"], Bool[Array, "m"]]


def _tokens(name, prediction, target, temperature):
    """The chances of each token at each place, the reference, and what of both is valid."""
    logits, valid = prediction
    reference, reference_valid = target
    if logits.ndim != 2 or valid.shape != logits.shape[:1] or reference_valid.shape != reference.shape:
        raise ValueError(
            f"{name}: an example must be ((logits [t, v], mask [t]), (tokens [m], mask [m])); got"
            f" {list(logits.shape)}, {list(valid.shape)}, {list(reference.shape)}, {list(reference_valid.shape)}"
        )
    chances = smooth.one_hot_argmax(widen(logits), temperature=temperature)
    return jnp.where(valid[:, None], chances, 0), valid, reference, reference_valid


def _check_tokens(function, predictions, targets, weights):
    """Raises if a token of the references that counts and is not traced is not in the vocabulary."""
    tokens, valid = targets
    if not _check.is_traced(valid) and not _check.is_traced(weights):
        counts = jax.device_get(valid)
        if weights is not None:
            counts = counts & (jax.device_get(weights)[:, None] != 0)
        _check.values_within(function, "tokens", tokens, 0, predictions[0].shape[-1] - 1, counts)


def _grams(name, prediction, target, temperature, order):
    """Expected matches (clipped) and totals of n-grams up to an order."""
    chances, valid, reference, reference_valid = _tokens(name, prediction, target, temperature)
    length, num_tokens = chances.shape[0], reference.shape[0]
    # same[t, j]: the chance that place t holds the token at place j of the reference.
    same = jnp.where(reference_valid[None], chances[:, jnp.where(reference_valid, reference, 0)], 0)
    equal = (reference[:, None] == reference[None]) & reference_valid[:, None] & reference_valid[None]
    matches, totals = [], []
    run, run_equal, run_valid, run_reference = same, equal, valid, reference_valid
    for n in range(order):
        if n > 0:
            run = run[:-1, :-1] * same[n:, n:]
            run_equal = run_equal[:-1, :-1] & equal[n:, n:]
            run_valid = run_valid[:-1] & valid[n:]
            run_reference = run_reference[:-1] & reference_valid[n:]
        if n >= min(length, num_tokens):
            matches.append(jnp.zeros((), chances.dtype))
            totals.append(jnp.sum(run_valid).astype(chances.dtype))
            continue
        # Each distinct n-gram of the reference counts once: as often as expected, at most as often as it is there.
        there = jnp.maximum(jnp.sum(run_equal, 1), 1).astype(chances.dtype)
        expected = jnp.sum(run, 0)
        matches.append(jnp.sum(jnp.where(run_reference, jnp.minimum(expected, there) / there, 0)))
        totals.append(jnp.sum(run_valid).astype(chances.dtype))
    return {
        "matches": jnp.stack(matches),
        "totals": jnp.stack(totals),
        "length": jnp.sum(valid).astype(chances.dtype),
        "reference_length": jnp.sum(reference_valid).astype(chances.dtype),
    }


def bleu(*, order: int = 4, temperature: ScalarLike = 1.0) -> Metric:
    r"""The expected BLEU of a corpus: clipped matches of n-grams, in geometric mean, and a penalty for brevity.

    .. math:: \min\big(1, e^{1 - r / h}\big)\, \prod_{n=1}^{N} \Big(\frac{\sum \text{matches}_n}{\sum
              \text{n-grams}_n}\Big)^{1 / N}

    With chances of tokens at each place, independent of each other, the count of an n-gram of the reference is replaced
    by its expectation before it is clipped (the clipped mean bounds the mean of the clipped from above).

    Args:
      order: N, the longest n-grams.
      temperature: of the tokens' softmax, in the unit of the logits; the number 0 takes the likeliest.

    Returns:
      A :class:`Metric` in [0, 1], of predictions (logits [t, v], mask [t]) and targets (tokens [m], mask [m]); masks
      are True first and False at the end. 0 if no n-gram of some order matches.

    Gradient:
      That of the expected counts; biased on a minibatch.

    Raises:
      ValueError: if ``order`` is below 1 or ``temperature`` negative; when called, if the shapes
        do not fit, or a token that is not traced is not in the vocabulary.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> tokens, mask = jnp.array([[3, 1, 2, 0]]), jnp.ones((1, 4), bool)
      >>> logits = 9 * jnp.eye(4)[tokens[0]][None]
      >>> float(metrics.evaluate(bleu(temperature=0.0), (logits, mask), (tokens, mask)))
      1.0

    Reference:
      Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002; Shao et al., "Minimizing
      the Bag-of-Ngrams Difference for Non-Autoregressive Neural Machine Translation", 2020 (expected counts).
      https://arxiv.org/abs/1911.09320
    """
    _check.at_least("bleu", "order", order, 1)
    _check.non_negative("bleu", "temperature", temperature)

    def final(means):
        shares = ratio(means["matches"], means["totals"], 0.0)
        some = jnp.all(shares > 0)
        mean = jnp.exp(jnp.mean(jnp.log(jnp.where(some, shares, 1))))
        brevity = 1 - ratio(means["reference_length"], means["length"], 1.0)
        return jnp.where(some, mean * jnp.exp(jnp.where(brevity < 0, brevity, 0)), 0)

    def stat(prediction, target):
        return _grams("bleu", prediction, target, temperature, order)

    return Metric(stat, final, statistic=f"n-grams up to {order}", check=_check_tokens)


def rouge_l(*, beta: float = 1.0, temperature: ScalarLike = 1.0) -> Metric:
    r"""ROUGE-L: the F-measure of the longest common subsequence of prediction and reference, in the mean.

    .. math:: F_\beta = \frac{(1 + \beta^2)\, \ell}{h + \beta^2 r}

    Args:
      beta: positive, the weight of recall.
      temperature: of the tokens' softmax and of the alignment; the number 0 counts hard.

    Returns:
      A :class:`Metric`, in [0, 1] at temperature 0 (a smooth maximum may exceed 1), of predictions (logits [t, v], mask
      [t]) and targets (tokens [m], mask [m]).

    Gradient:
      That of the smooth alignment; unbiased on a minibatch.

    Raises:
      ValueError: if ``beta`` is not positive or ``temperature`` negative; when called, if the shapes
        do not fit, or a token that is not traced is not in the vocabulary.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> logits, mask = jnp.eye(4)[None], jnp.ones((1, 4), bool)  # 0 1 2 3
      >>> tokens = jnp.array([[0, 2, 3, 1]])
      >>> float(metrics.evaluate(rouge_l(temperature=0.0), (logits, mask), (tokens, mask)))
      0.75

    Reference:
      Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, section 3.
    """
    _check.positive("rouge_l", "beta", beta)
    _check.non_negative("rouge_l", "temperature", temperature)

    def stat(prediction, target):
        chances, valid, reference, reference_valid = _tokens("rouge_l", prediction, target, temperature)
        common = smooth.longest_common_subsequence(
            chances[:, jnp.where(reference_valid, reference, 0)],
            temperature=temperature,
            where_rows=valid,
            where_columns=reference_valid,
        )
        length, reference_length = (jnp.sum(mask).astype(common.dtype) for mask in (valid, reference_valid))
        return ratio((1 + beta**2) * common, length + beta**2 * reference_length, 0.0)

    return Metric(stat, lambda mean: mean, statistic=f"ROUGE-L of beta {beta:g}", check=_check_tokens)


def token_error_rate(*, temperature: ScalarLike = 1.0) -> Metric:
    r"""The word (or character) error rate: edits to get from the predictions to the references, by reference length.

    .. math:: \frac{\sum_i d_\lambda(\hat y_i, y_i)}{\sum_i |y_i|}

    Args:
      temperature: of the tokens' softmax and of the alignment; the number 0 counts hard.

    Returns:
      A :class:`Metric` where less is better, at least 0 at temperature 0, of predictions (logits [t, v], mask [t]) and
      targets (tokens [m], mask [m]).

    Gradient:
      That of the smooth alignment; biased on a minibatch by the lengths alone.

    Raises:
      ValueError: if ``temperature`` is negative; when called, if the shapes
        do not fit, or a token that is not traced is not in the vocabulary.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> logits, mask = jnp.eye(4)[None], jnp.ones((1, 4), bool)  # 0 1 2 3
      >>> tokens = jnp.array([[0, 2, 3, 1]])
      >>> float(metrics.evaluate(token_error_rate(temperature=0.0), (logits, mask), (tokens, mask)))
      0.5
    """
    _check.non_negative("token_error_rate", "temperature", temperature)

    def stat(prediction, target):
        chances, valid, reference, reference_valid = _tokens("token_error_rate", prediction, target, temperature)
        edits = smooth.edit_distance(
            1 - chances[:, jnp.where(reference_valid, reference, 0)],
            temperature=temperature,
            where_rows=valid,
            where_columns=reference_valid,
        )
        return {"edits": edits, "length": jnp.sum(reference_valid).astype(edits.dtype)}

    def final(means):
        return ratio(means["edits"], means["length"], 0.0)

    return Metric(stat, final, increasing=False, statistic="edits and lengths", check=_check_tokens)
