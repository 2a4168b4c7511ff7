"""The residual quantizer: each stage quantizes what the stages before it left."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxlab import _check
from jaxlab._precision import widen
from jaxlab.quantize.contract import Quantized, Quantizer, check_vectors, claims
from jaxlab.quantize.through import GradientOperator, by_straight_through
from jaxlab.quantize.vector import vector_quantizer

__all__ = ["residual"]


@claims(lambda factory: factory(vector_quantizer(num_codes=8), depth=3), trained=True)
def residual(
    quantizer: Quantizer,
    *,
    depth: int,
    shared: bool = False,
    dropout: float = 0.0,
    scale: float = 1.0,
    gradient: GradientOperator = by_straight_through,
) -> Quantizer:
    r"""Stages of one kind, each of which quantizes what those before it left over.

    .. math:: r_i = x - \mathrm{sg}\Big(\sum_{j<i} q_j\Big), \qquad q_i = s^i\, Q_i(r_i / s^i), \qquad z = \sum_i q_i,
              \qquad L = \frac1m \sum_{i<m} L_i(r_i / s^i)

    ``gradient`` is applied once, to z and x: the encoder's gradient has factor 1 at any depth (the sum of stages that
    each copy the gradient would have factor ``depth``), and each stage has its own commitment loss. Parameters and
    state are those of one quantizer with a leading axis of ``depth``, or without it if ``shared``.

    Args:
      quantizer: of each stage. Its own ``gradient`` is not used.
      depth: number of stages.
      shared: all stages have one codebook. It is updated once a call, with the residuals of all stages, after all of
        them were quantized by the one that came in.
      dropout: probability that a call uses only the first m stages, m uniform in 1..depth; the same m for the whole
        batch, and on all devices that get the same key. Codes of stages left out are -1.
      scale: :math:`s`, by which each stage is finer than the one before: 1 for codebooks, which find their scale by
        themselves; 1 / (L - 1) for levels of :func:`finite_scalar_quantizer`.
      gradient: how the gradient passes from the sum to the vectors (and, if it does, to the codes).

    Returns:
      A quantizer whose codes have a last axis of ``depth`` (before the axes of the quantizer's own codes).

    Gradient:
      Of values: that of ``gradient``, by default straight-through (biased). Of the loss: exact.

    Raises:
      ValueError: for fewer than 1 stage, a dropout outside [0, 1), or a scale not above 0.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab.quantize import finite_scalar_quantizer
      >>> quantizer = residual(finite_scalar_quantizer(levels=(3,)), depth=2, scale=0.5)
      >>> quantized, _ = quantizer.apply(jax.random.key(0), (), (), jnp.array([[0.7]]))
      >>> quantized.values.tolist(), quantized.codes.tolist()
      ([[0.5]], [[2, 0]])

    Reference:
      Zeghidour et al., "SoundStream: An End-to-End Neural Audio Codec", 2021, section III.C (with quantizer dropout).
      https://arxiv.org/abs/2107.03312
    """
    _check.at_least("residual", "depth", depth, 1)
    _check.fraction("residual", "dropout", dropout)
    _check.positive("residual", "scale", scale)

    def zeros_of(x):
        """Zeros that vary over devices as the vectors do."""
        return jnp.where(jnp.isnan(lax.stop_gradient(x)), 0, jnp.zeros((), x.dtype))

    def sizes(dtype):
        return jnp.array([scale**number for number in range(depth)], dtype)

    def init(
        key: PRNGKeyArray, sample: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Any, Any]:
        if shared:
            return quantizer.init(key, sample, mask=mask)
        rest, made = widen(sample), []
        for number, stage_key in enumerate(jax.random.split(key, depth)):
            params, state = quantizer.init(stage_key, rest / scale**number, mask=mask)
            made.append((params, state))
            codes = quantizer.encode(params, state, rest / scale**number)
            rest = rest - scale**number * quantizer.decode(params, state, codes).astype(rest.dtype)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)

    def number_used(key):
        key_whether, key_number = jax.random.split(key)
        shortened = jax.random.uniform(key_whether) < dropout
        return jnp.where(shortened, jax.random.randint(key_number, (), 1, depth + 1), depth)

    def mask_of(x, mask, number, used):
        """The mask of one stage: nothing, in one that is left out."""
        if not dropout:
            return mask
        return (jnp.ones(x.shape[:-1], bool) if mask is None else mask) & (number < used)

    def apply(
        key: PRNGKeyArray, params: Any, state: Any, x: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Quantized, Any]:
        check_vectors("residual", x, None, mask)
        key_stages, key_used, key_gradient, key_update = jax.random.split(key, 4)
        vectors, used = widen(x), number_used(key_used)
        steps = jnp.arange(depth), sizes(vectors.dtype)

        def stage(total, given):
            (number, size), own = given
            rest = (vectors - total) / size
            stage_params, stage_state = (params, state) if shared else own
            stage_key = jax.random.fold_in(key_stages, number)
            stage_mask = mask_of(x, mask, number, used)
            out, new_state = quantizer.apply(stage_key, stage_params, stage_state, rest, mask=stage_mask)
            value = quantizer.decode(stage_params, stage_state, out.codes).astype(vectors.dtype)
            # Of a shared codebook it is one update, after all of them.
            found = out.codes, out.loss, (lax.stop_gradient(rest), stage_mask) if shared else new_state
            return lax.stop_gradient(total + size * value), found

        stages = steps, None if shared else (params, state)
        _, (codes, losses, found) = lax.scan(stage, zeros_of(vectors), stages)
        loss = jnp.sum(losses) / used.astype(losses.dtype)
        if not shared:
            new_state = found
        elif quantizer.update is None:
            new_state = state
        else:
            rests, masks = found
            new_state = quantizer.update(key_update, params, state, rests, codes, mask=masks)
        codes = jnp.moveaxis(codes, 0, x.ndim - 1)
        hard = decode(params, state, codes).astype(x.dtype)
        values = gradient(key_gradient, hard, x)
        values = values if mask is None else jnp.where(mask[..., None], values, 0)
        return Quantized(values, codes, loss), new_state

    def encode(params: Any, state: Any, x: Float[Array, "*n d"]) -> Int[Array, "*codes"]:
        check_vectors("residual", x, None)
        vectors = widen(x)

        def search(total, given):
            size, own = given
            stage_params, stage_state = (params, state) if shared else own
            codes = quantizer.encode(stage_params, stage_state, (vectors - total) / size)
            value = quantizer.decode(stage_params, stage_state, codes).astype(vectors.dtype)
            return total + size * value, codes

        _, codes = lax.scan(search, zeros_of(vectors), (sizes(vectors.dtype), None if shared else (params, state)))
        return jnp.moveaxis(codes, 0, x.ndim - 1)

    def decode(params: Any, state: Any, codes: Int[Array, "*codes"]) -> Float[Array, "*n d"]:
        by_stage = jnp.moveaxis(codes, -1 - len(quantizer.code_shape), 0)
        values = jax.vmap(quantizer.decode, (None, None, 0) if shared else 0)(params, state, by_stage)
        return jnp.sum(values * sizes(values.dtype).reshape(-1, *(1,) * (values.ndim - 1)), 0)

    def update(
        key: PRNGKeyArray,
        params: Any,
        state: Any,
        x: Float[Array, "*n d"],
        codes: Int[Array, "*codes"],
        *,
        mask: Bool[Array, "*n"] | None = None,
    ) -> Any:
        assert quantizer.update is not None
        vectors, by_stage = widen(x), jnp.moveaxis(codes, x.ndim - 1, 0)
        # A stage that was left out has codes of -1 all over, and decodes to 0.
        there = jnp.any(by_stage.reshape(*by_stage.shape[: x.ndim], -1) >= 0, -1)
        masks = there if mask is None else there & mask[None]
        values = jax.vmap(quantizer.decode, (None, None, 0) if shared else 0)(params, state, by_stage)
        sizes_of = sizes(vectors.dtype).reshape(-1, *(1,) * x.ndim)
        sums = jnp.cumsum(sizes_of * values.astype(vectors.dtype), 0)
        before = jnp.concatenate([zeros_of(vectors)[None], sums[:-1]])
        rests = (vectors[None] - before) / sizes_of
        if shared:
            return quantizer.update(key, params, state, rests, by_stage, mask=masks)

        def one(key, params, state, x, codes, mask):
            assert quantizer.update is not None
            return quantizer.update(key, params, state, x, codes, mask=mask)

        return jax.vmap(one)(jax.random.split(key, depth), params, state, rests, by_stage, masks)

    shape = depth, *quantizer.code_shape
    changing = None if quantizer.update is None else update
    return Quantizer(init, apply, encode, decode, quantizer.num_codes, shape, update=changing)
