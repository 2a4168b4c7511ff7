"""Trees as charts: from distances, from spans, and those that need no model."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxlab import _check
from jaxlab._jit import jit

__all__ = [
    "balanced_tree",
    "binarize",
    "distance_to_tree",
    "left_branching_tree",
    "random_tree",
    "right_branching_tree",
    "spans_to_chart",
]


def chart_of(first: Int[Array, "n"], last: Int[Array, "n"], valid: Bool[Array, "n"], size: int) -> Bool[Array, "t t"]:
    """The chart of the spans (first, last) of two words at least."""
    words = jnp.arange(size, dtype=first.dtype)
    begins = (first[:, None] == words[None]) & (valid & (first < last))[:, None]
    ends = last[:, None] == words[None]
    return jnp.matmul(begins.T.astype(jnp.float32), ends.astype(jnp.float32)) > 0


def grid(size: int) -> tuple[Int[Array, "t t"], Int[Array, "t t"]]:
    """The first and the last word of each cell of a chart."""
    return lax.broadcasted_iota(jnp.int32, (size, size), 0), lax.broadcasted_iota(jnp.int32, (size, size), 1)


@jit(static=("right_biased",))
def distance_to_tree(
    distances: Float[Array, "t"], length: Int[Array, ""], *, right_biased: bool = False
) -> Bool[Array, "t t"]:
    r"""The binary tree whose largest distances are split first.

    With :math:`k = \arg\max d` (the first of equal ones), the words i ... j are split

    .. math:: [\,i \dots k - 1 \mid k \dots j\,],\; k > i \qquad \text{or, right-biased,} \qquad
              [\,i \dots k - 1 \mid [\,k \mid k + 1 \dots j\,]\,],\; k \ge i

    and so on in each part. The distance of a word is that to the word before it; the first one has none, and only the
    right-biased parser, which is the paper's, looks at it. That one cannot produce every tree, and is nearer to English
    than another on distances that are pure noise: compare with :func:`random_tree`.

    All constituents are found at once: one ends where the next larger distance begins. ``jax.vmap`` makes a padded
    batch.

    Args:
      distances: of each word; those from ``length`` on are not looked at. A NaN is no number: its tree is undefined.
      length: how many words there are, 0 ... t.
      right_biased: the parser of the paper.

    Returns:
      The chart of the ``length`` - 1 constituents of two words and more, the whole sentence included; it is empty for
      one word or none.

    Gradient:
      None: the result is boolean.

    Examples:
      >>> import jax.numpy as jnp
      >>> jnp.argwhere(distance_to_tree(jnp.array([0.0, 1.0, 3.0, 2.0]), jnp.array(4))).tolist()
      [[0, 1], [0, 3], [2, 3]]

    Reference:
      Shen, Lin, Jacob, Sordoni, Courville, Bengio, "Straight to the Tree: Constituency Parsing with Neural Syntactic
      Distance", 2018, https://arxiv.org/abs/1806.04168; Dyer, Melis, Blunsom, "A Critical Analysis of Biased Parsers
      in Unsupervised Parsing", 2019 (the bias). https://arxiv.org/abs/1909.09428
    """
    size, length = distances.shape[0], length.astype(jnp.int32)
    word = jnp.arange(size, dtype=jnp.int32)
    here, there = grid(size)
    mine, others = distances[:, None], distances[None]
    # The nearest word before with a distance as large, the nearest after with a larger one. The first word's distance
    # changes nothing for the unbiased parser, which goes back to that word anyway; nor do those of padding, for no
    # constituent goes beyond the length.
    above_before = (there < here) & (others >= mine)
    above_after = (there > here) & (others > mine)
    before = jnp.max(jnp.where(above_before, there, -1), 1, initial=-1)
    last = jnp.min(jnp.where(above_after, there, length), 1, initial=size) - 1
    inside = word < length
    if right_biased:
        chart = chart_of(before + 1, last, inside & (before + 1 < word), size)
        return chart | chart_of(word, last, inside, size)
    return chart_of(jnp.maximum(before, 0), last, inside & (word > 0), size)


@jit(static=("size",))
def spans_to_chart(spans: Int[Array, "n 2"], *, size: int) -> Bool[Array, "t t"]:
    r"""The chart of a list of constituents.

    Args:
      spans: first and last word (included) of each. Those of fewer than two words, or outside of 0 ... size - 1, are
        left out: (-1, -1) is padding.
      size: how many words the chart has.

    Returns:
      True where there is a span; one that stands twice counts once.

    Gradient:
      None: the result is boolean.

    Raises:
      ValueError: if ``size`` is below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> spans_to_chart(jnp.array([[0, 1], [2, 2], [-1, -1]]), size=3).astype(int).tolist()
      [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    """
    _check.at_least("spans_to_chart", "size", size, 1)
    return chart_of(spans[:, 0], spans[:, 1], jnp.ones(spans.shape[0], bool), size)


@jit(static=("size",))
def right_branching_tree(length: Int[Array, ""], *, size: int) -> Bool[Array, "t t"]:
    r"""The tree [w1 [w2 [w3 ...]]]: every constituent goes to the end. In English, the baseline to beat.

    Args:
      length: how many words there are.
      size: how many words the chart has.

    Returns:
      Its chart.

    Gradient:
      None: the result is boolean.

    Raises:
      ValueError: if ``size`` is below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> jnp.argwhere(right_branching_tree(jnp.array(3), size=4)).tolist()
      [[0, 2], [1, 2]]
    """
    _check.at_least("right_branching_tree", "size", size, 1)
    first, last = grid(size)
    return (first < last) & (last == length.astype(jnp.int32) - 1)


@jit(static=("size",))
def left_branching_tree(length: Int[Array, ""], *, size: int) -> Bool[Array, "t t"]:
    r"""The tree [[[w1 w2] w3] ...]: every constituent goes to the beginning.

    Args:
      length: how many words there are.
      size: how many words the chart has.

    Returns:
      Its chart.

    Gradient:
      None: the result is boolean.

    Raises:
      ValueError: if ``size`` is below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> jnp.argwhere(left_branching_tree(jnp.array(3), size=4)).tolist()
      [[0, 1], [0, 2]]
    """
    _check.at_least("left_branching_tree", "size", size, 1)
    first, last = grid(size)
    return (first == 0) & (last > 0) & (last < length.astype(jnp.int32))


@jit(static=("size",))
def balanced_tree(length: Int[Array, ""], *, size: int) -> Bool[Array, "t t"]:
    r"""The tree that splits in the middle; of an odd number of words, the right half has one more.

    Args:
      length: how many words there are.
      size: how many words the chart has.

    Returns:
      Its chart.

    Gradient:
      None: the result is boolean.

    Raises:
      ValueError: if ``size`` is below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> jnp.argwhere(balanced_tree(jnp.array(4), size=4)).tolist()
      [[0, 1], [0, 3], [2, 3]]
    """
    _check.at_least("balanced_tree", "size", size, 1)
    word = jnp.arange(size, dtype=jnp.int32)
    first, end = jnp.zeros_like(word), jnp.broadcast_to(length.astype(jnp.int32), word.shape)
    depth = jnp.zeros(size)
    # Each word goes down the halves until it is the one that a split stands before.
    for _ in range(size.bit_length() + 1):
        middle = first + (end - first) // 2
        depth = depth + (word != middle).astype(depth.dtype)
        first, end = (
            jnp.where(word == middle, first, jnp.where(word > middle, middle, first)),
            jnp.where(word == middle, end, jnp.where(word < middle, middle, end)),
        )
    return distance_to_tree(-depth, length)


@jit(static=("size",))
def random_tree(key: PRNGKeyArray, length: Int[Array, ""], *, size: int) -> Bool[Array, "t t"]:
    r"""The tree of which every constituent is split at a place drawn uniformly.

    Args:
      key: consumed.
      length: how many words there are.
      size: how many words the chart has.

    Returns:
      Its chart: :func:`distance_to_tree` of independent uniform distances.

    Gradient:
      None: the result is boolean.

    Raises:
      ValueError: if ``size`` is below 1.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> int(random_tree(jax.random.key(0), jnp.array(6), size=8).sum())
      5
    """
    _check.at_least("random_tree", "size", size, 1)
    return distance_to_tree(jax.random.uniform(key, (size,)), length)


@jit()
def binarize(chart: Bool[Array, "t t"], length: Int[Array, ""]) -> Bool[Array, "t t"]:
    r"""The binary tree that has all constituents of a given tree: a node of more children is split from the left.

    [a b c d] becomes [a [b [c d]]]. No binary tree agrees better with the given one: its score is the upper bound of
    every binary parser ("oracle").

    Args:
      chart: of a tree: constituents that do not cross.
      length: how many words there are.

    Returns:
      Its chart, the whole sentence included.

    Gradient:
      None: the result is boolean.

    Raises:
      ValueError: if ``chart`` is not square.

    Examples:
      >>> import jax.numpy as jnp
      >>> gold = jnp.zeros((4, 4), bool).at[1, 2].set(True)  # w0 [w1 w2] w3
      >>> jnp.argwhere(binarize(gold, jnp.array(4))).tolist()
      [[0, 3], [1, 2], [1, 3]]
    """
    size = chart.shape[0]
    if chart.shape != (size, size):
        raise ValueError(f"binarize: chart must be square; got shape {list(chart.shape)}")
    first, last = grid(size)
    length = length.astype(jnp.int32)
    tree = (chart & (last < length)) | ((first == 0) & (last == length - 1))
    tree = (tree & (first < last)).astype(jnp.int32)
    # Whether some constituent that ends at this word begins before this one.
    begun = lax.cummax(tree, axis=0)
    begun = jnp.concatenate([jnp.zeros_like(begun[:1]), begun[:-1]]) > 0
    # Whether such a one ends at or after this first word, but before this last word: then (first, last) crosses it.
    inside = lax.cummax((begun & (last >= first)).astype(jnp.int32), axis=1)
    crossed = jnp.concatenate([jnp.zeros_like(inside[:, :1]), inside[:, :-1]], 1) > 0
    return (tree > 0) | (begun & ~crossed & (first < last) & (last < length))
