"""Which axes of a row's arrays may have other sizes, and its data in such sizes.

An axis has the letter that an annotation of the public function gives it, or that ``Case.axes`` gives it where the
annotation leaves it open (``...``, or a factory whose metric or quantizer a row calls). Axes of one letter have one
size; ``*shape`` stands for any number of axes, ``4*h`` for four times h, and a number for itself.
"""

import functools
import inspect
import math
import typing
from typing import Any

import jax
import numpy as np
from cases import Case
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from programs import example

#: What each letter stands for: the sizes of one axis, or of any number of them.
Sizes = dict[str, tuple[int, ...]]


def letters_of(annotation: Any, value: Any) -> list[str | None]:
    """What an annotation says of the axes of each array in a value, and None where it says nothing."""
    if hasattr(value, "_fields"):
        fields = typing.get_type_hints(type(value))
        pairs = [(fields[name], field) for name, field in zip(value._fields, value, strict=True)]
    elif isinstance(value, tuple) and typing.get_origin(annotation) is tuple:
        parts = typing.get_args(annotation)
        parts = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        pairs = list(zip(parts, value, strict=True))
    else:
        members = (annotation, *typing.get_args(annotation))
        found = [member.dim_str for member in members if "..." not in getattr(member, "dim_str", "...")]
        return [found[0] if found else None] * len(jax.tree.leaves(value))
    return [letters for pair in pairs for letters in letters_of(*pair)]


def data_letters(case: Case) -> list[str]:
    """The letters of each array of the data, in the order of ``jax.tree.leaves``; sizes where nothing names them."""
    parameters = inspect.signature(case.function or case.target).parameters
    result = []
    for name, value in sorted(case.data.items()):
        named = letters_of(parameters[name].annotation if name in parameters else None, value)
        for (path, leaf), letters in zip(jax.tree_util.tree_leaves_with_path(value), named, strict=True):
            field = ".".join([name, *(jax.tree_util.keystr((part,), simple=True) for part in path)])
            letters = case.axes.get(field, case.axes.get(name, letters))
            result.append(" ".join(map(str, np.shape(leaf))) if letters is None or np.ndim(leaf) == 0 else letters)
    return result


@functools.cache
def free_letters(case: Case) -> tuple[str, ...]:
    """The letters whose sizes may be drawn, in the order in which they appear."""
    parts = [part for letters in data_letters(case) for part in letters.split()]
    names = ["*" * part.startswith("*") + part.split("*")[-1] for part in parts]
    return tuple(dict.fromkeys(name for name in names if not name.isdigit()))


def allowed(case: Case, letter: str) -> tuple[int, ...]:
    """The sizes that an axis of this letter may have: the smallest first, and odd ones among them."""
    return case.sizes.get(letter, (0, 1, 2, 3, 5))


def drawn(case: Case) -> SearchStrategy[Sizes]:
    """Sizes of all letters, each from the smallest that it may have on."""

    def of(letter):
        sizes = allowed(case, letter)
        if not letter.startswith("*"):
            return st.sampled_from(sizes).map(lambda size: (size,))
        ranks = [(sizes[0],), (), (sizes[1],), (sizes[-1], sizes[2]), (sizes[2], sizes[0])]
        return st.sampled_from(ranks)

    return st.fixed_dictionaries({letter: of(letter) for letter in free_letters(case)})


def smallest(case: Case) -> Sizes:
    """The smallest size of each letter, and one such axis where there may be any number."""
    return {letter: allowed(case, letter)[:1] for letter in free_letters(case)}


def axes_of(letters: str, sizes: Sizes) -> list[tuple[int, ...]]:
    """The sizes that each part of some letters stands for."""

    def of(part):
        if part in sizes:
            return sizes[part]
        factor, _, letter = part.rpartition("*")
        return (int(factor or 1) * (int(letter) if letter.isdigit() else sizes[letter][0]),)

    return [of(part) for part in letters.split()]


def fits(letters: str, shape: tuple[int, ...], sizes: Sizes) -> bool:
    """Whether an array may have this shape; a letter that has no size yet gets the one that it has here."""
    parts = letters.split()
    rank = len(shape) - sum(not part.startswith("*") for part in parts)
    rest = shape
    for part in parts:
        count = rank if part.startswith("*") and part not in sizes else 1
        if part not in sizes and part.lstrip("*").isalpha():
            sizes[part] = rest[:count]
        (axis,) = axes_of(part, sizes)
        if rest[: len(axis)] != axis:
            return False
        rest = rest[len(axis) :]
    return not rest


def resized(case: Case, sizes: Sizes) -> dict[str, Any]:
    """The data of the row in these sizes: longer axes repeat what is in its own, and shorter ones are cut."""
    leaves, tree = jax.tree.flatten(example(case))

    def convert(leaf, letters):
        if isinstance(leaf, float):
            return leaf
        axes = axes_of(letters, sizes)
        starred = [part.startswith("*") for part in letters.split()]
        # The axes of *shape are one axis of the example, whatever their number.
        own = np.shape(leaf)
        rank = len(own) - sum(not star for star in starred)
        flat, rest = [], list(own)
        for star in starred:
            flat.append(math.prod(rest[:rank]) if star else rest[0])
            rest = rest[rank if star else 1 :]
        values = np.asarray(leaf).reshape(flat)
        for axis, part in enumerate(axes):
            values = values.take(np.arange(math.prod(part)) % flat[axis], axis)
        return values.reshape(sum(axes, ()))

    converted = [convert(*pair) for pair in zip(leaves, data_letters(case), strict=True)]
    resized = tree.unflatten(converted)
    for name, letter in case.below.items():
        resized[name] = resized[name] % max(sizes[letter][0], 1)
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, float) else jax.numpy.asarray(leaf), resized)


def result_letters(case: Case, results: Any) -> list[str]:
    """The letters of each array of the result, which the annotations say, or else the row."""
    annotation = inspect.signature(case.function or case.target).return_annotation
    letters = case.returned or letters_of(annotation, results)
    assert None not in letters, f"{case.label}: its row must say what is returned"
    return [str(each) for each in letters]
