"""The published speeds of the chips that programs are compiled for, and the least time that a program can take."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """One chip: how fast its makers say it multiplies and moves numbers, in units of 1 / s."""

    name: str
    flops: float
    """Of products of float32 matrices at JAX's default precision: operands rounded to bfloat16 (TPU), TF32 (H100)."""
    exact_flops: float
    """Of products exact to float32: six products of bfloat16 parts (an H100's float32 units, too, are slower)."""
    bandwidth: float
    """Bytes to and from the chip's own memory."""
    source: str


# Matrix units multiply bfloat16 matrices; float32 operands at the highest precision are three bfloat16 numbers each, of
# whose nine products the six largest are added: on a TPU by ``Precision.HIGHEST``, on an H100 in the search for codes.
PRODUCTS_OF_PARTS = 6
V5E = Chip("TPU v5e", 197e12, 197e12 / PRODUCTS_OF_PARTS, 819e9, "https://cloud.google.com/tpu/docs/v5e")
V6E = Chip("TPU v6e", 918e12, 918e12 / PRODUCTS_OF_PARTS, 1638e9, "https://cloud.google.com/tpu/docs/v6e")
# The data sheet's TF32, 989e12, is for matrices half of whose numbers are zero, and so is its bfloat16, twice as much.
# Its float32 units do 67e12.
H100_SHEET = "NVIDIA H100 Tensor Core GPU data sheet, H100 SXM"
H100 = Chip("NVIDIA H100", 989e12 / 2, 989e12 / PRODUCTS_OF_PARTS, 3.35e12, H100_SHEET)
CHIPS = {chip.name: chip for chip in (V5E, V6E, H100)}


@dataclass(frozen=True)
class Roofline:
    """The least time that arithmetic and memory traffic leave, and which of them it is."""

    seconds: float
    bound: str  # "compute" or "memory"


def roofline(chip: Chip, *, flops: float, num_bytes: float, exact_flops: float = 0.0) -> Roofline:
    """The time in which a chip at its published speed does so much, arithmetic and memory at once.

    Args:
      chip: at its published speed.
      flops: all of them.
      num_bytes: read from and written to the chip's memory.
      exact_flops: how many of them are of products at the highest precision.
    """
    compute = (flops - exact_flops) / chip.flops + exact_flops / chip.exact_flops
    memory = num_bytes / chip.bandwidth
    return Roofline(max(compute, memory), "compute" if compute > memory else "memory")


def chip_of(device_kind: str) -> Chip | None:
    """The chip that a device of this kind is, by the name that its driver gives; None for others."""
    kinds = {"TPU v5 lite": V5E, "TPU v5e": V5E, "TPU v6 lite": V6E, "TPU v6e": V6E, "NVIDIA H100 80GB HBM3": H100}
    return kinds.get(device_kind)
