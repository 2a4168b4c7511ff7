r"""Gradient operators: the same value, another gradient.

Each function here is the identity (or the constant one) as far as values go, and exists for what ``jax.grad`` and
``jax.jvp`` see. All of them work in forward and in reverse mode, under ``jit``, ``vmap`` and ``scan``.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Num, PRNGKeyArray, ScalarLike, Shaped

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen

__all__ = ["diveq", "first_order_only", "magic_box", "rotation_trick", "straight_through", "with_gradient"]


# A primitive and not a custom_jvp, whose rule JAX forgets in the derivative of a reverse-mode derivative of a scan (it
# differentiates the body instead, and ``hard`` has no gradient: a silent wrong number).
_straight_through = Primitive("straight_through")
_straight_through.def_impl(lambda hard, soft: hard)
_straight_through.def_abstract_eval(lambda hard, soft: soft)
mlir.register_lowering(_straight_through, lambda context, hard, soft: [hard])


def _straight_through_jvp(primals, tangents):
    return _straight_through.bind(*primals), tangents[1]


def _straight_through_batch(arguments, axes):
    size = next(x.shape[axis] for x, axis in zip(arguments, axes, strict=True) if axis is not None)
    batched = [batching.bdim_at_front(x, axis, size) for x, axis in zip(arguments, axes, strict=True)]
    return _straight_through.bind(*batched), 0


ad.primitive_jvps[_straight_through] = _straight_through_jvp
batching.primitive_batchers[_straight_through] = _straight_through_batch


@jit()
def straight_through(hard: Shaped[Array, "..."], soft: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""The value of ``hard`` with the gradient of ``soft``.

    .. math:: y = \mathrm{hard}, \qquad \mathrm{d}y := \mathrm{d}\,\mathrm{soft}

    The usual one-liner ``soft + stop_gradient(hard - soft)`` rounds: in float32 about half of its entries differ from
    ``hard`` in the last bits. This function returns ``hard`` itself, bit for bit, in every dtype, also where ``soft``
    is infinite or NaN.

    Args:
      hard: the value; a float array of the dtype of ``soft``, or integers or booleans, which are converted to it.
      soft: the differentiable stand-in, of the same shape.

    Returns:
      ``hard``, in the dtype of ``soft``.

    Gradient:
      That of ``soft``, for derivatives of every order; none reaches ``hard``. As an estimate of the gradient of
      an expectation over ``hard`` it is biased (exact if the function behind it is linear and ``soft`` is
      the mean).

    Raises:
      ValueError: if the shapes differ, or ``hard`` is of another float dtype.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> def quantize(x):
      ...     return straight_through(jnp.round(x), x)
      >>> quantize(jnp.array([0.2, 1.7])).tolist()
      [0.0, 2.0]
      >>> jax.grad(lambda x: quantize(x).sum())(jnp.array([0.2, 1.7])).tolist()
      [1.0, 1.0]

    Reference:
      Bengio, Léonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
      Computation", 2013 (the straight-through estimator). https://arxiv.org/abs/1308.3432
    """
    _check.same_shape("straight_through", hard=hard, soft=soft)
    if hard.dtype != soft.dtype:
        if jnp.issubdtype(hard.dtype, jnp.inexact):
            raise ValueError(
                f"straight_through: hard must have the dtype of soft, {soft.dtype}, or be integer or boolean;"
                f" got {hard.dtype}"
            )
        hard = hard.astype(soft.dtype)
    if jax.typeof(hard) != jax.typeof(soft):
        # In a shard_map, hard may differ between devices that share soft: its gradient is then the sum over them.
        soft = jnp.where(hard == hard, soft, soft)
    return _straight_through.bind(hard, soft)


@jit()
def magic_box(log_prob: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""One, with the gradient of a probability's logarithm: the operator of DiCE.

    .. math:: \square(\ell) = \exp(\ell - \mathrm{stop\_gradient}(\ell)) = 1, \qquad
              \mathrm{d}\,\square(\ell) = \square(\ell)\, \mathrm{d}\ell

    ``f(x) * magic_box(log_prob(x))`` has the value ``f(x)`` and, in expectation over ``x``, the derivatives of
    :math:`\mathbb{E} f(x)` to every order. The value is exactly one also where ``log_prob`` is infinite.

    Args:
      log_prob: log-probability (in nats) of what was drawn.

    Returns:
      Ones, of the same shape and dtype.

    Gradient:
      :math:`\nabla\ell` (0 where ``log_prob`` is infinite); the second derivative is
      :math:`\nabla\nabla\ell + \nabla\ell\,\nabla\ell^\top`, and so on: unbiased score-function derivatives of every
      order.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> float(magic_box(jnp.array(-3.0)))
      1.0
      >>> float(jax.grad(lambda x: magic_box(x**2))(3.0))
      6.0
      >>> float(jax.grad(jax.grad(lambda x: magic_box(x**2)))(3.0))
      38.0

    Reference:
      Foerster et al., "DiCE: The Infinitely Differentiable Monte Carlo Estimator", 2018 (the MagicBox operator).
      https://arxiv.org/abs/1802.05098
    """
    # A draw of probability 0 or density infinity has no gradient to pass on, and inf - inf would be NaN.
    zero = jnp.where(jnp.isfinite(log_prob), log_prob - lax.stop_gradient(log_prob), 0)
    return jnp.exp(zero)


def first_order_only(x: Num[Array, "..."], *, name: str) -> Num[Array, "..."]:
    r"""The identity, whose second derivative is a loud error.

    A surrogate that is built to have the right (or a useful) first derivative has, as a rule, a second derivative that
    is silently zero or wrong. Passed through this function, a value may be differentiated once.

    Args:
      x: any array.
      name: what the error calls the thing that has no second derivative.

    Returns:
      ``x``.

    Gradient:
      The identity's. A derivative of it raises.

    Raises:
      TypeError: when a second derivative through ``x`` is traced.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> def loss(x):
      ...     return jnp.sin(first_order_only(x, name="my_estimator"))
      >>> float(jax.grad(loss)(0.0))
      1.0
      >>> jax.grad(jax.grad(loss))(0.0)
      Traceback (most recent call last):
      ...
      TypeError: my_estimator: only its first derivative is defined; a second derivative was asked for
    """

    # A custom_vjp, for its rule survives where that of a custom_jvp is dropped without a word: in the derivative of
    # a derivative in reverse mode of a scan.
    @jax.custom_vjp
    def one(x):
        return jnp.ones_like(x)

    def forbid(x):
        # Reached, in forward mode too, only if something that was differentiated once is differentiated again.
        raise TypeError(f"{name}: only its first derivative is defined; a second derivative was asked for")

    one.defvjp(forbid, forbid)

    @jax.custom_jvp
    def identity(x):
        return x

    @identity.defjvp
    def differentiate_once(primals, tangents):
        return identity(*primals), tangents[0] * one(*primals)

    return identity(x)


def with_gradient(
    value: Float[Array, ""], x: Float[Array, "*shape"], gradient: Float[Array, "*shape"], *, name: str
) -> Float[Array, ""]:
    r"""A value, to whose gradient with respect to ``x`` the given one is added.

    .. math:: y = \mathrm{value}, \qquad \mathrm{d}y := \mathrm{d}\,\mathrm{value} + \langle g, \mathrm{d}x \rangle

    This is how an estimator that comes as a formula for the gradient (and not as the gradient of a formula) takes part
    in ``jax.grad``.

    Args:
      value: one scalar; its own derivatives stay.
      x: what the gradient is with respect to.
      gradient: g; it may depend on anything, and that is not differentiated.
      name: what the error calls the thing that has no second derivative.

    Returns:
      ``value``.

    Gradient:
      As above, to first order. A second derivative, through ``x`` or through what g depends on, raises: it would
      silently lack the derivative of g.

    Raises:
      ValueError: if ``gradient`` has not the shape of ``x``.
      TypeError: when a second derivative is traced.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> def f(x):
      ...     return with_gradient(x.sum(), x, 2 * x, name="my_estimator")
      >>> jax.value_and_grad(f)(jnp.array([1.0, 3.0]))
      (Array(4., dtype=float32), Array([3., 7.], dtype=float32))
    """
    _check.same_shape("with_gradient", x=x, gradient=gradient)

    # As in first_order_only: a custom_vjp, whose rule is reached if x or what g depends on is differentiated again.
    @jax.custom_vjp
    def once(g, x):
        return g

    def forbid(*_):
        raise TypeError(f"{name}: only its first derivative is defined; a second derivative was asked for")

    once.defvjp(forbid, forbid)

    @jax.custom_jvp
    def zero(x, g):
        # Made of x and g so that JAX sees a batch wherever one of them is batched.
        return jnp.sum(jnp.where((x == x) & (g == g), 0, 0)).astype(value.dtype)

    def inject(primals, tangents):
        x, g = primals
        if isinstance(tangents[0], SymbolicZero):
            # x is not differentiated here. If it never is, g plays no part; if it is later, that is a second
            # derivative.
            return zero(x, g), jnp.sum(once(jnp.zeros_like(x), x)).astype(value.dtype)
        return zero(x, g), jnp.sum(widen(once(g, x)) * widen(tangents[0])).astype(value.dtype)

    zero.defjvp(inject, symbolic_zeros=True)
    return value + zero(x, gradient)


def direction_and_length(x: Float[Array, "*n d"]) -> tuple[Float[Array, "*n d"], Float[Array, "*n 1"]]:
    """Unit vectors and lengths, as constants: 0 and 0 of a zero vector, and no square that under- or overflows."""
    x = lax.stop_gradient(x)
    largest = jnp.max(jnp.abs(x), -1, keepdims=True, initial=0)
    scaled = x / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(scaled**2, -1, keepdims=True))
    return scaled / jnp.where(length > 0, length, 1), largest * length


@jit()
def rotation_trick(hard: Float[Array, "*n d"], soft: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    r"""The value of ``hard``, with the gradient of ``soft`` rotated and stretched onto it.

    .. math:: \mathrm{d}y := \lambda R\, \mathrm{d}\,\mathrm{soft}, \qquad
              R = I - 2 r r^\top + 2 \hat q \hat u^\top, \quad
              r = \frac{\hat u + \hat q}{\lVert \hat u + \hat q \rVert},
              \quad \lambda = \frac{\lVert q \rVert}{\lVert u \rVert}

    with :math:`u` = ``soft``, :math:`q` = ``hard`` and hats for unit vectors: :math:`R` is the rotation in their plane
    with :math:`R \hat u = \hat q`, so the angle between gradient and code becomes that between gradient and encoder.

    Args:
      hard: the value, vectors along the last axis.
      soft: the differentiable stand-ins, of the same shape and dtype.

    Returns:
      ``hard``, bit for bit.

    Gradient:
      :math:`\lambda R^\top g` to ``soft``, none to ``hard``; biased. Where either vector is zero there is no rotation:
      the gradient is :math:`g`. A short ``soft`` beside a long ``hard`` gets a large one, by :math:`\lambda`. Opposite
      vectors get the reflection that takes one to the other. R and :math:`\lambda` are constants to second derivatives.

    Raises:
      ValueError: if shapes or dtypes differ.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> def quantize(x):  # onto the second axis
      ...     return rotation_trick(jnp.array([0.0, 2.0]), x)
      >>> quantize(jnp.array([1.0, 0.0])).tolist()
      [0.0, 2.0]
      >>> jax.grad(lambda x: quantize(x)[1])(jnp.array([1.0, 0.0])).round(3).tolist()
      [2.0, 0.0]

    Reference:
      Fifty et al., "Restructuring Vector Quantization with the Rotation Trick", 2025, section 4.
      https://arxiv.org/abs/2410.06424
    """
    _check.same_shape("rotation_trick", hard=hard, soft=soft)
    x = widen(soft)
    (u, length), (q, target) = direction_and_length(x), direction_and_length(widen(hard))
    r, _ = direction_and_length(u + q)
    rotates = (length > 0) & (target > 0)
    stretch = jnp.where(rotates, target / jnp.where(rotates, length, 1), 1)

    def along(a):
        return jnp.sum(a * x, -1, keepdims=True)

    rotated = stretch * (x - 2 * r * along(r) + 2 * q * along(u))
    # Only its derivative is used; what overflows in its value is not.
    return straight_through(hard, jnp.where(rotates, rotated, x).astype(soft.dtype))


@jit()
def diveq(
    key: PRNGKeyArray, hard: Float[Array, "*n d"], soft: Float[Array, "*n d"], *, noise: ScalarLike = 0.05
) -> Float[Array, "*n d"]:
    r"""``soft`` moved as far as ``hard`` is away, in nearly its direction: a quantization with a derivative of its own.

    .. math:: z = u + \lVert q - u \rVert\, \mathrm{stop\_gradient}\Big(\frac{v}{\lVert v \rVert}\Big), \qquad
              v = (q - u) + \sigma \frac{\lVert q - u \rVert}{\sqrt d}\, \varepsilon, \quad \varepsilon \sim N(0, I)

    with :math:`u` = ``soft`` and :math:`q` = ``hard``. The noise is relative to the error :math:`q - u`, so a small
    error is not drowned: z is about :math:`\sigma \lVert q - u \rVert` away from q.

    Args:
      key: consumed.
      hard: the vectors to go to, along the last axis.
      soft: the vectors to start from, of the same shape and dtype.
      noise: :math:`\sigma`, at least 0, relative to the error; at 0 the value is ``hard``, bit for bit.

    Returns:
      Vectors near ``hard``, in its dtype.

    Gradient:
      With :math:`\hat e` the unit error and :math:`\hat v` the unit direction: :math:`(I - \hat e \hat v^\top) g` to
      ``soft`` and :math:`\hat e \hat v^\top g` to ``hard``: a codebook needs no loss of its own. Biased. Where the
      error is 0: :math:`g` to ``soft``, none to ``hard``.

    Raises:
      ValueError: if shapes or dtypes differ.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> quantize = lambda x: diveq(jax.random.key(0), jnp.array([3.0, 1.0]), x, noise=0.0)
      >>> quantize(jnp.array([1.0, 1.0])).tolist()
      [3.0, 1.0]
      >>> jax.jacobian(quantize)(jnp.array([1.0, 1.0])).tolist()  # none along the error
      [[0.0, 0.0], [0.0, 1.0]]

    Reference:
      Vali et al., "DiVeQ: Differentiable Vector Quantization Using the Reparameterization Trick", 2025.
      https://arxiv.org/abs/2509.26469
    """
    _check.same_shape("diveq", hard=hard, soft=soft)
    if hard.dtype != soft.dtype:
        raise ValueError(f"diveq: hard must have the dtype of soft, {soft.dtype}; got {hard.dtype}")
    x, target = widen(soft), widen(hard)
    error = target - x
    unit_error, length = direction_and_length(error)
    drawn = jax.random.normal(key, x.shape, x.dtype) * (jnp.asarray(noise, x.dtype) / x.shape[-1] ** 0.5)
    direction, _ = direction_and_length(unit_error + lax.stop_gradient(drawn))
    direction = jnp.where(length > 0, direction, 0)
    # The error's length has the derivative unit_error, also at an error of 0, where it has none.
    distance = jnp.sum(unit_error * error, -1, keepdims=True)
    # The code itself and a difference of directions, which is 0 without noise: that is exact.
    value = (target + length * jnp.where(drawn == 0, 0, direction - unit_error)).astype(soft.dtype)
    return straight_through(lax.stop_gradient(value), (x + distance * direction).astype(soft.dtype))
