"""What a random variable can do, as protocols: an estimator asks for one of these and for nothing else.

A distribution is any object with the methods; none has to subclass anything. Those of jaxlab are NamedTuples whose
leaves are their parameters. One value is one event: parameters of shape [d] make one vector of d independent
components with a scalar ``log_prob``, and a batch is made by ``jax.vmap``.
"""

from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

__all__ = [
    "Antithetic",
    "Conditionable",
    "Enumerable",
    "EvenlyConditionable",
    "Flippable",
    "MeanValued",
    "Relaxable",
    "Reparameterizable",
    "Scored",
    "ScoredPath",
    "WeakDerivative",
    "WeaklyDifferentiable",
]

Value = TypeVar("Value")

#: For each component of a variable: the derivative of its law with respect to one parameter, as a constant times the
#: difference of two laws, and a draw from either of them (None: the draw that came with it).
WeakDerivative: TypeAlias = tuple[Value, Value, Value | None]


@runtime_checkable
class Scored(Protocol):
    """Can be drawn from, and tells the log-probability (or log-density) of a draw: enough for the score function."""

    def sample(self, key: PRNGKeyArray) -> Any:
        """One draw, a constant to ``jax.grad``."""
        ...

    def log_prob(self, value: Any) -> Float[Array, ""]:
        """Log-probability of one value, in nats, differentiable with respect to the parameters."""
        ...


@runtime_checkable
class Reparameterizable(Protocol):
    """A draw is a differentiable function of the parameters and of noise without parameters."""

    def reparameterize(self, key: PRNGKeyArray) -> Any:
        """One draw, differentiable with respect to the parameters."""
        ...


@runtime_checkable
class ScoredPath(Scored, Reparameterizable, Protocol):
    """Both Scored and Reparameterizable."""


@runtime_checkable
class Antithetic(Reparameterizable, Protocol):
    """A draw has a mirror image of the same law, that is large where the draw is small."""

    def antithetic(self, value: Any) -> Any:
        """The mirror image of one value, differentiable with respect to the parameters and the value."""
        ...


@runtime_checkable
class WeaklyDifferentiable(Scored, Protocol):
    """Independent components, the derivative of whose laws is a difference of two laws that can be drawn from."""

    def weak_derivatives(self, key: PRNGKeyArray) -> tuple[Any, tuple[WeakDerivative[Any], ...]]:
        """One draw, and one derivative for each parameter, in the order of the fields; constants to ``jax.grad``."""
        ...


@runtime_checkable
class Relaxable(Protocol):
    """A discrete draw is the hard end of a continuous one."""

    def perturb(self, key: PRNGKeyArray) -> Any:
        """The continuous variable behind one draw, differentiable with respect to the parameters."""
        ...

    def soften(self, perturbed: Any, *, temperature: ScalarLike) -> Any:
        """The relaxed draw that belongs to it, differentiable."""
        ...

    def harden(self, perturbed: Any) -> Any:
        """The discrete draw that belongs to it, a constant to ``jax.grad``."""
        ...


@runtime_checkable
class Conditionable(Relaxable, Scored, Protocol):
    """The continuous variable behind a draw can be drawn anew, given the draw."""

    logits: Any  # what the noise is added to

    def perturb_given(self, key: PRNGKeyArray, value: Any) -> Any:
        """The continuous variable behind ``value``, differentiable with respect to the parameters."""
        ...

    def condition(self, perturbed: Any) -> Any:
        """The same continuous variable, differentiable as ``perturb_given`` with its own draw and its own noise."""
        ...


@runtime_checkable
class EvenlyConditionable(Conditionable, Protocol):
    """Draws of the continuous variable behind a draw can be spread evenly, so that their mean varies less."""

    def perturb_given_evenly(self, key: PRNGKeyArray, value: Any, *, num: int) -> Any:
        """``num`` of them along a new first axis; the mean over them is unbiased."""
        ...


@runtime_checkable
class Flippable(Relaxable, Scored, Protocol):
    """A product of sites with few values each, parameterised by logits: a draw can be changed at one site."""

    logits: Any

    def mean(self) -> Any:
        """The probabilities."""
        ...

    def neighbours(self, value: Any, *, numbers: Any = None) -> Any:
        """The values that differ from ``value`` at one site, all or those of these numbers, along a new first axis."""
        ...

    def neighbour_changes(self, slope: Any, value: Any) -> Any:
        """What a linear function with this slope gains from ``value`` to each neighbour."""
        ...

    def site_costs(self, cost: Any, neighbour_costs: Any, value: Any) -> Any:
        """The costs of ``value`` and its neighbours, arranged as a derivative with respect to the value."""
        ...

    def covariance_product(self, probabilities: Any, direction: Any) -> Any:
        """The covariance of a draw with these probabilities, times ``direction``."""
        ...


@runtime_checkable
class Enumerable(Scored, Protocol):
    """Has few enough values to list them all."""

    def support(self) -> Any:
        """All values, along a new first axis, each once."""
        ...


@runtime_checkable
class MeanValued(Scored, Protocol):
    """Has a mean in closed form, of the shape of one value."""

    def mean(self) -> Any:
        """The mean of the draws, differentiable with respect to the parameters."""
        ...
