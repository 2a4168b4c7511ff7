"""Certifies every estimator: what is claimed unbiased must pass, and what is known to be wrong must fail the same test.

    python -m benchmarks.certify                  # every row of ESTIMATORS and BOUNDS: two minutes on two cores
    python -m benchmarks.certify --estimator disarm arms --draws 1000000

On small problems with exact values (``small_problems.py``) it draws each estimator's value and gradients (for the
distribution's parameters, and for what f closes over), and takes the largest z score of all their coordinates. An
unbiased claim holds below 5 standard errors, a declared bias must be seen above 5 on one problem at least. Estimators
with known mistakes (``controls.py``) must be refused, and published variances of toy problems be met. Prints tables,
writes ``certificate.json``; the exit status is 1 if anything is not as claimed.
"""

import functools
import inspect
import math
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.flatten_util import ravel_pytree
from rich.console import Console

from benchmarks.certificate_table import PARTS, show
from benchmarks.controls import CONTROLS
from benchmarks.small_problems import BOUND_PROBLEMS, SMALL_PROBLEMS, BoundProblem, SmallProblem
from benchmarks.vae import COMPILE_FAST
from experiments.files import errors_told, write_json
from jaxlab import estimators
from jaxlab.distributions import Bernoulli
from jaxlab.estimators import BOUNDS, ESTIMATORS, Estimator
from jaxlab.moments import Moments, moments_of

RESULTS = Path(__file__).parent / "results"
#: How many standard errors are a bias.
FAR = 5.0
#: Draws that are made at once.
CHUNK = 10_000
#: Samples of the bounds: more than one, where they differ.
BOUND_SAMPLES = 3
#: An estimator that wastes its noise has at least so much more variance than the right one.
WASTE = 1.2


@dataclass(frozen=True)
class Settings:
    """What to certify."""

    estimator: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Estimators by name; all of them, with controls and published variances, by default."""
    draws: int = 200_000
    """Draws for each line."""
    out: Path = RESULTS
    """Directory for the JSON file."""
    seed: int = 0
    """Of the draws."""


def options_of(row: Estimator) -> dict[str, Any]:
    """Options under which a declared bias is not too small to be seen, and control variates are at work."""
    chosen = {"temperature": 1.0, "scale": 0.5, "num_samples": BOUND_SAMPLES}
    names = set(row.tunable) | ({"num_samples"} if row.name in BOUNDS else set())
    return {name: chosen[name] for name in names & set(chosen)}


def draw_of(row: Estimator, problem: SmallProblem | BoundProblem) -> Callable:
    """One value of an estimator on a problem: a function of the key, the distribution and theta."""
    cost = problem.log_joint if isinstance(problem, BoundProblem) else problem.cost
    options = options_of(row)

    def draw(key: Any, dist: Any, theta: Any) -> Any:
        if row.initial_state is None:
            return row.estimate(key, dist, lambda x: cost(x, theta), **options)
        return row.estimate(key, dist, lambda x: cost(x, theta), row.initial_state(), **options)[0]

    return draw


def exact_of(row: Estimator | None, problem: SmallProblem | BoundProblem) -> Any:
    """The exact value, and its gradients for the distribution's parameters and theta."""

    def expectation(dist: Any, theta: Any) -> Any:
        if isinstance(problem, SmallProblem):
            return problem.expectation(dist, theta)
        return problem.bound(dist, theta, BOUND_SAMPLES, power_of(row))

    return jax.jit(jax.value_and_grad(expectation, argnums=(0, 1)))(problem.dist, problem.theta)


def power_of(row: Estimator | None) -> float:
    """The power of the importance weights in the bound that a row estimates."""
    if row is None or row.name != "renyi":
        return 1.0
    return 1 - inspect.signature(row.estimate).parameters["order"].default


def sample_moments(draw: Callable, dist: Any, theta: Any, num_draws: int, seed: int) -> Moments:
    """Moments of the value and the gradients, all coordinates in one vector."""

    @functools.partial(jax.jit, compiler_options=COMPILE_FAST)
    def chunk(key: Any) -> Moments:
        def one(key: Any) -> Any:
            value, gradients = jax.value_and_grad(lambda d, t: draw(key, d, t), argnums=(0, 1))(dist, theta)
            return ravel_pytree((value, gradients))[0]

        return moments_of(jax.vmap(one)(jax.random.split(key, min(CHUNK, num_draws))))

    keys = jax.random.split(jax.random.key(seed), math.ceil(num_draws / CHUNK))
    return functools.reduce(lambda total, key: total.merge(chunk(key)), keys[1:], chunk(keys[0]))


def z_scores(moments: Moments, exact: Any) -> dict[str, float]:
    """For the value and for each gradient the largest z score, by absolute value, of its coordinates."""
    expected = np.asarray(ravel_pytree(exact)[0])
    # What does not vary is as exact as its arithmetic, which has a few roundings of the largest number in it.
    rounding = 16 * np.finfo(np.float32).eps * np.abs(expected).max()
    error = np.hypot(np.asarray(moments.standard_error()), rounding)
    z = np.abs(np.asarray(moments.mean) - expected) / error
    z = np.where(np.isfinite(z), z, np.inf)
    _, (to_dist, _) = exact
    size = ravel_pytree(to_dist)[0].size
    parts = zip(PARTS, np.split(z, [1, 1 + size]), strict=True)
    return {name: float(part.max(initial=0)) for name, part in parts}


def certify(row: Estimator, name: str, num_draws: int, seed: int) -> dict[str, Any]:
    """One row on one problem: z scores, and variance of the gradient."""
    problem = (BOUND_PROBLEMS if row.name in BOUNDS else SMALL_PROBLEMS)[name]
    line = zlib.crc32(f"{row.name} {name}".encode()) ^ seed
    moments = sample_moments(draw_of(row, problem), problem.dist, problem.theta, num_draws, line)
    exact = exact_of(row, problem)
    claims = dict(zip(PARTS, (row.unbiased_value, row.unbiased_gradient, row.unbiased_value), strict=True))
    return {
        "estimator": row.name,
        "problem": name,
        "draws": int(moments.num_samples),
        "claims": claims,
        "z": z_scores(moments, exact),
        "variance": gradient_variance(moments, exact),
    }


def gradient_variance(moments: Moments, exact: Any) -> float:
    """The trace of the covariance of the gradient for the distribution's parameters."""
    size = ravel_pytree(exact[1][0])[0].size
    return float(np.sum(np.asarray(moments.variance())[1 : 1 + size]))


def fitting() -> list[tuple[Estimator, str]]:
    """Every row with every problem whose distribution it takes."""
    pairs = [(row, name, p) for row in ESTIMATORS.values() for name, p in SMALL_PROBLEMS.items()]
    pairs += [(row, name, p) for row in BOUNDS.values() for name, p in BOUND_PROBLEMS.items()]
    return [(row, name) for row, name, problem in pairs if isinstance(problem.dist, row.needs)]


def contradictions(lines: list[dict[str, Any]]) -> list[str]:
    """Claims that were not borne out: an unbiased one on some problem, or a bias on none."""
    found = []
    for part in PARTS:
        largest: dict[str, float] = {}
        for line in lines:
            z, name = line["z"][part], line["estimator"]
            if line["claims"][part] and z >= FAR:
                found.append(f"{name} on {line['problem']}: {part} claimed unbiased, |z| = {z:.1f}")
            if not line["claims"][part]:
                largest[name] = max(largest.get(name, 0.0), z)
        found += [f"{name}: {part} declared biased, but |z| = {z:.1f}" for name, z in largest.items() if z < FAR]
    return found


def certify_controls(num_draws: int, seed: int) -> list[dict[str, Any]]:
    """Every wrong estimator beside the right one: z score of its gradient, and ratio of variances."""
    lines = []
    for name, control in CONTROLS.items():
        is_bound = control.problem in BOUND_PROBLEMS
        problem: Any = (BOUND_PROBLEMS if is_bound else SMALL_PROBLEMS)[control.problem]
        cost = problem.log_joint if is_bound else problem.cost
        options = {"num_samples": BOUND_SAMPLES} if is_bound else {}
        exact = exact_of(None, problem)

        def moments(
            estimate: Callable, problem: Any = problem, cost: Callable = cost, options: dict = options
        ) -> Moments:
            def draw(key: Any, dist: Any, theta: Any) -> Any:
                return estimate(key, dist, lambda x: cost(x, theta), **options)

            return sample_moments(draw, problem.dist, problem.theta, num_draws, seed)

        wrong, right = moments(control.estimate), moments(control.right)
        ratio = gradient_variance(wrong, exact) / gradient_variance(right, exact)
        z = z_scores(wrong, exact)["to the distribution"]
        found = z >= FAR if control.is_biased else z < FAR and ratio > WASTE
        size = ravel_pytree(exact[1][0])[0].size
        error = (np.asarray(wrong.mean) - np.asarray(ravel_pytree(exact)[0]))[1 : 1 + size]
        lines.append(
            {
                "control": name,
                "mistake": control.mistake,
                "problem": control.problem,
                "z": z,
                "relative_bias": float(np.linalg.norm(error) / np.linalg.norm(ravel_pytree(exact[1][0])[0])),
                "variance_ratio": ratio,
                "found": bool(found),
            }
        )
    return lines


#: Variances of one call, by the logit, of f = (b - t)^2: t, theta, and those of four estimators (to the digits given).
ONE_BIT = (
    (0.45, 0.5, 1.594e-2, 6.250e-4, 2.083e-4, 0.0),
    (0.45, 0.1, 7.700e-3, 3.690e-4, 3.257e-4, 3.240e-4),
    (0.49, 0.5, 1.564e-2, 2.500e-5, 8.333e-6, 0.0),
    (0.499, 0.5, 1.563e-2, 2.500e-7, 8.333e-8, 0.0),
    (0.499, 0.75, 1.167e-2, 2.344e-7, 1.510e-7, 1.406e-7),
    (0.499, 0.1, 5.661e-3, 1.476e-7, 1.303e-7, 1.296e-7),
    (0.499, 0.01, 6.236e-4, 1.941e-8, 1.921e-8, 1.921e-8),
)
ONE_BIT_ESTIMATORS = ("reinforce", "leave_one_out", "arm", "disarm")


def one_bit_variance(name: str, t: float, theta: float) -> float:
    """The variance in closed form, with c = f(1) - f(0) = 1 - 2 t and q = 1 - theta."""
    q, c = 1 - theta, 1 - 2 * t
    exact = theta * q * c
    rare = min(theta, q)
    second_moment = {
        "reinforce": theta * q * (q * (1 - t) ** 4 + theta * t**4),
        # (c / 2)^2 where two independent bits differ.
        "leave_one_out": (c / 2) ** 2 * 2 * theta * q,
        # The pair differs where u < rare or u > 1 - rare: c^2 times the mean of (u - 1/2)^2 there.
        "arm": c**2 * 2 * ((1 / 2) ** 3 - (1 / 2 - rare) ** 3) / 3,
        # There it is c sigma(|phi|) / 2, up to its sign.
        "disarm": (c * max(theta, q) / 2) ** 2 * 2 * rare,
    }[name]
    return second_moment - exact**2


def certify_variances(num_draws: int, seed: int) -> list[dict[str, Any]]:
    """The variances of the one-bit problem: drawn, in closed form, and as published."""
    lines = []
    for number, name in enumerate(ONE_BIT_ESTIMATORS):
        squares = squared_deviations(name, num_draws)
        for t, theta, *published in ONE_BIT:
            exact, logit = theta * (1 - theta) * (1 - 2 * t), math.log(theta / (1 - theta))
            drawn, by_hand = squares(jax.random.key(seed), t, logit, exact), one_bit_variance(name, t, theta)
            # A draw is a difference of costs of some 1/4, rounded: that is what is left where there is no variance.
            rounding = np.finfo(np.float32).eps * 0.25
            error = math.hypot(float(drawn.standard_error()), 2 * rounding * math.sqrt(by_hand) + rounding**2)
            z = abs(float(drawn.mean) - by_hand) / error
            agrees = math.isclose(by_hand, published[number], rel_tol=6e-4, abs_tol=1e-15)
            lines.append(
                {
                    "estimator": name,
                    "t": t,
                    "theta": theta,
                    "drawn": float(drawn.mean),
                    "closed_form": by_hand,
                    "published": published[number],
                    "z": z,
                    "agrees": bool(z < FAR and agrees),
                }
            )
    return lines


def squared_deviations(name: str, num_draws: int) -> Callable[..., Moments]:
    """The moments of (gradient - exact)^2 of the one-bit problem, as a function of key, t, logit and exact."""
    estimate = getattr(estimators, name)

    @functools.partial(jax.jit, compiler_options=COMPILE_FAST)
    def squares(key: Any, t: Any, logit: Any, exact: Any) -> Moments:
        def one(key: Any) -> Any:
            return jax.grad(lambda phi: estimate(key, Bernoulli(phi), lambda b: (b - t) ** 2))(jnp.asarray(logit))

        return moments_of((jax.vmap(one)(jax.random.split(key, num_draws)) - exact) ** 2)

    return squares


#: Of f = mean (b - 0.499)^2 over 200 bits: estimator, options, logit, and the mean variance of a coordinate as
#: measured once, to two or three digits.
MANY_BITS = (
    ("reinforce", {}, 0.0, 1.56e-2),
    ("leave_one_out", {}, 0.0, 1.25e-9),
    ("arm", {}, 0.0, 1.67e-9),
    ("disarm", {}, 0.0, 1.25e-9),
    ("reinforce", {}, 1.0, 1.23e-2),
    ("leave_one_out", {}, 1.0, 7.7e-10),
    ("arm", {}, 1.0, 9.0e-10),
    ("disarm", {}, 1.0, 7.8e-10),
    ("double_control_variate", {"scale": -0.0042}, 1.0, 6.9e-12),
    ("double_control_variate", {"scale": -1.0}, 1.0, 4.2e-5),
)
MANY_BITS_DRAWS = 20_000  # of 200 coordinates each
#: How far two measurements of so few digits may be apart.
TOLERANCE = 0.02


def certify_many_bits(num_draws: int, seed: int) -> list[dict[str, Any]]:
    """The variances of the problem of 200 bits, drawn in float64 (they are differences of equal numbers)."""
    lines = []
    for name, options, logit, measured in MANY_BITS:
        estimate = functools.partial(getattr(estimators, name), **options)

        def draw(key: Any, dist: Any, theta: Any, estimate: Callable = estimate) -> Any:
            return estimate(key, dist, lambda b: jnp.mean((b - theta) ** 2))

        with jax.enable_x64(True):
            dist = Bernoulli(jnp.full(200, logit, jnp.float64))
            moments = sample_moments(draw, dist, jnp.float64(0.499), num_draws, seed)
            drawn = float(np.mean(np.asarray(moments.variance())[1:-1]))
        lines.append(
            {
                "estimator": name,
                "options": options,
                "logit": logit,
                "drawn": drawn,
                "measured": measured,
                "agrees": math.isclose(drawn, measured, rel_tol=TOLERANCE),
            }
        )
    return lines


def main(settings: Settings) -> int:
    """Certifies, prints, writes; returns the exit status."""
    console = Console() if sys.stdout.isatty() else Console(width=150)
    known = {**ESTIMATORS, **BOUNDS}
    for name in settings.estimator:
        if name not in known:
            console.print(f"--estimator: no {name!r}; there are {', '.join(known)}")
            return 2
    chosen = [(row, name) for row, name in fitting() if not settings.estimator or row.name in settings.estimator]
    lines = []
    for row, name in chosen:
        lines.append(certify(row, name, settings.draws, settings.seed))
        console.print(f"{row.name} on {name}: {', '.join(f'{z:.1f}' for z in lines[-1]['z'].values())}")
    is_full = not settings.estimator
    controls = certify_controls(settings.draws, settings.seed) if is_full else []
    variances = certify_variances(settings.draws, settings.seed) if is_full else []
    many = certify_many_bits(min(settings.draws, MANY_BITS_DRAWS), settings.seed) if is_full else []
    found = contradictions(lines)
    found += [f"the mistake of {line['control']} was not found" for line in controls if not line["found"]]
    found += [f"variance of {line['estimator']} at {line['t']}" for line in variances if not line["agrees"]]
    found += [f"variance of {line['estimator']} with 200 bits" for line in many if not line["agrees"]]
    results = {
        "draws": settings.draws,
        "jax": jax.__version__,
        "lines": lines,
        "controls": controls,
        "variances": variances,
        "variances_of_200_bits": many,
        "contradictions": found,
    }
    show(results, console)
    if is_full or settings.out != RESULTS:  # a part does not overwrite the whole
        write_json(settings.out / "certificate.json", results)
    return 1 if found else 0


if __name__ == "__main__":
    with errors_told():
        sys.exit(
            main(
                tyro.cli(
                    Settings,
                    prog="python -m benchmarks.certify",
                    description=__doc__,
                    config=(tyro.conf.FlagCreatePairsOff,),
                )
            )
        )
