"""The strictest JAX there is: what passes here does not depend on promotion, reused keys, or silence."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
# Doctests compare the last line of a traceback: nothing may come after it.
jax.config.update("jax_traceback_filtering", "off")

# Read by pyright alone: half of its calls are errors.
collect_ignore = ["typing_claims.py"]
