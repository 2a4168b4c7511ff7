"""What a random variable can do, as protocols: an estimator asks for one of these and for nothing else.

A distribution is any object with the methods; none has to subclass anything. Those of jaxlab are NamedTuples whose
leaves are their parameters. One value is one event: parameters of shape [d] make one vector of d independent
components with a scalar ``log_prob``, and a batch is made by ``jax.vmap``.
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

__all__ = ["Enumerable", "MeanValued", "Relaxable", "Reparameterizable", "Scored"]


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
