"""How programs are compiled in tests, without the speed that small ones do not need, and what is not compiled again."""

import functools
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version

# Newer compilers have no other way of emitting fusions, and no option to choose it by.
HAS_OTHER_FUSIONS = Version(version("jaxlib")) < Version("0.11.1")
#: Half of the time of a test is that of compiling, which is shortest with these.
QUICK = {
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
} | ({"xla_cpu_use_fusion_emitters": False} if HAS_OTHER_FUSIONS else {})
#: For one program, those that the compiler has by itself, as far as they change the bits of a result.
AS_USED = {"xla_cpu_use_fusion_emitters": True} if HAS_OTHER_FUSIONS else {}


def flags(options: dict[str, int | bool]) -> str:
    """Options in the form of the variable ``XLA_FLAGS``."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())


@functools.cache
def tabled() -> dict[str, Any]:
    """The committed compile table: what it has is not compiled again by the same compiler, but with ``RECORD=1``."""
    path = Path(__file__).parents[1] / "benchmarks/results/compile.json"
    return {"rows": [], "law": {}} if os.environ.get("RECORD") or not path.exists() else json.loads(path.read_text())
