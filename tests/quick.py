"""Programs compiled with less effort: where they run a few times, optimizing them costs more than it saves."""

import functools

import jax

__all__ = ["quick_jit", "quickly"]

OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=OPTIONS)


def quickly(function, **settings):
    """A function of ``jax.jit`` once more with these settings, its own: the same program, not optimized."""
    return quick_jit(function.__wrapped__, **settings)
