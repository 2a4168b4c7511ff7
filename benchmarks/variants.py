"""The estimators with the options they are measured with: rows of ``ESTIMATORS``, and numbers for what they tune."""

import inspect
from dataclasses import dataclass
from typing import Any

from benchmarks.problems import Problem
from jaxlab.distributions import Enumerable
from jaxlab.estimators import ESTIMATORS, Estimator

TEMPERATURES = (0.1, 0.3, 0.5, 1.0)
AT_TEMPERATURES = ("gumbel_softmax", "straight_through_gumbel", "gumbel_rao")
#: In place of a number: the exact expectation of f, which is what a baseline that is a mean of earlier values aims at.
EXPECTATION = "E f"
#: In place of the scale of a control variate: the one of least variance, found from draws of their own.
BEST = "tuned"


@dataclass(frozen=True)
class Variant:
    """An estimator and its options: ``static`` ones are part of the program, ``options`` are numbers it gets."""

    row: Estimator
    static: tuple[tuple[str, int], ...] = ()
    options: tuple[tuple[str, float | str], ...] = ()

    @property
    def label(self) -> str:
        """Name and options in words, for tables and figures."""
        words = [f"{number} samples" if name == "num_samples" else f"{name} {number}" for name, number in self.static]
        return ", ".join([self.row.name, *words, *(f"{name} {number}" for name, number in self.options)])

    def numbers(self, problem: Problem) -> dict[str, float]:
        """The options, with numbers for what depends on the problem (and the estimator's default for a tuned one)."""
        given = {EXPECTATION: problem.value}
        parameters = inspect.signature(self.row.estimate).parameters
        given |= {BEST: parameters["scale"].default} if "scale" in parameters else {}
        return {name: given[number] if isinstance(number, str) else float(number) for name, number in self.options}

    def num_samples(self, problem: Problem) -> int:
        """What the row's counts of evaluations are counted by."""
        if self.row.minimal_num_samples == 0:
            return problem.num_states or 0
        options = dict(self.static)
        if "num_samples" in options:
            return options["num_samples"]
        return inspect.signature(self.row.estimate).parameters["num_samples"].default

    def fits(self, problem: Problem) -> bool:
        """Whether the distribution can do what the estimator needs (and lists enough states, but not too many)."""
        if self.row.needs is Enumerable:
            states = problem.num_states
            # Without replacement, one value must be left that is not drawn.
            return states is not None and (self.row.minimal_num_samples == 0 or self.num_samples(problem) < states)
        return bool(isinstance(problem.dist, self.row.needs))


def variants_of(row: Estimator) -> list[Variant]:
    """The variants of one row: its defaults, at four temperatures where these are what the estimator is about."""
    if row.name in AT_TEMPERATURES:
        return [Variant(row, options=(("temperature", temperature),)) for temperature in TEMPERATURES]
    if row.name == "reinforce":
        return [Variant(row), Variant(row, options=(("baseline", EXPECTATION),))]
    if "scale" in row.tunable:
        return [Variant(row, options=(("scale", BEST),))]
    if row.name == "leave_one_out":
        return [Variant(row, static=(("num_samples", number),)) for number in (2, 4)]
    return [Variant(row)]


def all_variants() -> list[Variant]:
    """Every variant of every estimator, in the order of the table."""
    return [variant for row in ESTIMATORS.values() for variant in variants_of(row)]


def reference() -> Variant:
    """What times and variances are compared with: plain ``reinforce``."""
    return Variant(ESTIMATORS["reinforce"])


def described(variant: Variant, problem: Problem) -> dict[str, Any]:
    """What is known of a variant before anything is measured."""
    row, num_samples = variant.row, variant.num_samples(problem)
    return {
        "estimator": row.name,
        "options": dict(variant.static) | variant.numbers(problem),
        "label": variant.label,
        "unbiased": row.unbiased_gradient,
        "evaluations": row.evaluations(num_samples, problem.dist),
        "derivative_evaluations": row.derivative_evaluations(num_samples, problem.dist),
    }
