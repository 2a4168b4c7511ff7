"""How programs are compiled in tests: what is given up is speed that small programs do not need."""

from importlib.metadata import version

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
