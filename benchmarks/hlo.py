"""What an XLA program does, read from its text: kernels of loops, collectives, and costs with the turns of loops.

XLA's own cost analysis counts the body of a loop once, however often it turns. Here the body is analysed by itself and
counted as often as the loop turns, where that is known: ``lax.scan`` and ``lax.fori_loop``. Other loops turn once.
"""

import collections
import functools
import math
import re
from dataclasses import dataclass
from typing import Any

import jax

# What is no kernel: names for parts of memory, and the loop's own.
FREE = {"parameter", "get-tuple-element", "tuple", "constant", "bitcast", "after-all", "iota", "while", "conditional"}
# On a TPU, the start of a copy and its end are two instructions for one transfer.
FREE |= {"copy-done", "slice-done", "dynamic-slice-done", "async-done", "custom-call-done"}
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (?:\([^=]*?\)|\S+) ([\w-]+)\(", re.M)
COLLECTIVE = re.compile(r"\b(all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(-start)?\(")
HEAD = re.compile(r"(ENTRY )?%?([\w.-]+) [({]")
WHILE = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = .* while\(.*$", re.M)
RESULT = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = \w+\[([\d,]*)\]", re.M)
EXACT_PRODUCT = re.compile(
    r"^\s+(?:ROOT )?%?[\w.-]+ = \w+\[([\d,]*)\]\S* dot\((?:\w+\[[\d,]*\]\S* )?%?([\w.-]+),[^\n]*"
    r"lhs_contracting_dims=\{([\d,]*)\}[^\n]*operand_precision=\{highest",
    re.M,
)
# The search for the nearest code (jaxlab/quantize/_fused.py), of which the analysis knows no arithmetic; and before a
# compiler has cut it for the devices, with the sizes of its axes.
UNCUT = re.compile(
    r'custom-call\(%?([\w.-]+),[^\n]*custom_call_target="CustomSPMDPartitioning"[^\n]*'
    r"\{i=(\d+), j=(\d+), k=(\d+), l=(\d+)\}"
)
SEARCH = re.compile(r'custom_call_target="__gpu\$xla\.gpu\.triton", operand_layout_constraints=\{(.*?)\}, api_version')


def computations(program: str) -> dict[str, str]:
    """The bodies of the computations of an HLO program, by name."""
    found = {}
    for block in re.split(r"\n(?=(?:ENTRY )?%?[\w.-]+ (?:\([^\n]*)?\{\n|(?:ENTRY )?%?[\w.-]+ \()", program):
        if match := HEAD.match(block):
            found[match[2]] = block
    return found


def loop_bodies(program: str) -> list[str]:
    """The bodies of all loops."""
    parts = computations(program)
    return [parts[name] for name in re.findall(r" while\([^\n]*?body=%?([\w.-]+)", program)]


def kernels(body: str) -> int:
    """How many kernels a computation starts; those of loops and branches in it not counted."""
    return sum(opcode not in FREE for opcode in INSTRUCTION.findall(body))


def collectives(program: str) -> dict[str, int]:
    """How many operations of each kind send something from device to device, those of a loop counted once."""
    return dict(collections.Counter(kind for kind, _ in COLLECTIVE.findall(program)))


def summary(compiled: jax.stages.Compiled) -> dict[str, Any]:
    """Of a compiled program, on one device: what laws and tables hold it to."""
    program = compiled.as_text() or ""
    costs = costs_of(program)
    memory: Any = compiled.memory_analysis()
    return {
        "flops": costs.flops,
        "bytes": costs.num_bytes,
        "temporary bytes": memory.temp_size_in_bytes,
        # What a step is given to write over counts twice: it is read and written.
        "argument and result bytes": memory.argument_size_in_bytes + memory.output_size_in_bytes,
        "collectives": collectives(program),
        "kernels": [kernels(body) for body in loop_bodies(program)],
    }


@dataclass(frozen=True)
class Loop:
    """A loop of a computation, and how often it turns; None where that depends on data."""

    body: str
    turns: int | None


def loops_of(body: str, parts: dict[str, str]) -> list[Loop]:
    """The loops that stand in one computation."""
    found = []
    for line in WHILE.findall(body):
        condition, turn = (re.search(rf"{name}=%?([\w.-]+)", line) for name in ("condition", "body"))
        if condition is None or turn is None:
            continue
        known = re.search(r'known_trip_count"?:?\{"n":"(\d+)"', line)
        if known is None:
            # A scan compares its counter with the length, the only number there.
            known = only_number(closure(condition[1], parts))
        found.append(Loop(turn[1], None if known is None else int(known[1])))
    return found


def only_number(text: str) -> re.Match | None:
    """The constant of a condition that compares with one, and does nothing else."""
    numbers = list(re.finditer(r" [su](?:32|64)\[\]\S* constant\((\d+)\)", text))
    simple = len(re.findall(r" compare\(", text)) == 1 and len(numbers) == 1
    return numbers[0] if simple else None


def names_in(name: str, parts: dict[str, str]) -> set[str]:
    """The computation and all that it calls."""
    found, left = set(), [name]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            # After a "=", in lists of branches, after a comma: wherever names stand.
            left += [other for other in re.findall(r"[={ %]([\w.-]+)", parts[one]) if other in parts]
    return found


def closure(name: str, parts: dict[str, str]) -> str:
    """The text of a computation and of all that it calls."""
    return "\n\n".join(parts[one] for one in names_in(name, parts))


@dataclass(frozen=True)
class Costs:
    """Of a program, with the turns of its loops."""

    flops: float
    num_bytes: float
    exact_flops: float
    """Of products at the highest precision."""

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(self.flops + other.flops, self.num_bytes + other.num_bytes, self.exact_flops + other.exact_flops)

    def times(self, number: float) -> "Costs":
        """So many of them."""
        return Costs(self.flops * number, self.num_bytes * number, self.exact_flops * number)


def costs_of(program: str) -> Costs:
    """The costs of a program, from its text: on one device, if that is what the text is for."""
    parts = computations(program)
    entry = next(match[2] for block in parts.values() if (match := HEAD.match(block)) and match[1])

    @functools.cache
    def total(name: str) -> Costs:
        cost = analysed(name)
        for reached in names_in(name, parts):
            # Loops also stand in branches and called computations; those in the body of a loop are its own.
            if reached != name and reached in inside(name):
                continue
            for loop in loops_of(parts[reached], parts):
                turns = 1 if loop.turns is None else loop.turns
                cost = cost + total(loop.body).times(turns) + analysed(loop.body).times(-1)
        return cost

    @functools.cache
    def inside(name: str) -> frozenset[str]:
        """What stands in the bodies of this computation's loops."""
        found: set[str] = set()
        for reached in names_in(name, parts):
            for loop in loops_of(parts[reached], parts):
                found |= names_in(loop.body, parts)
        return frozenset(found)

    @functools.cache
    def analysed(name: str) -> Costs:
        """By XLA's analysis: the body of each loop once."""
        needed = names_in(name, parts) - {name}
        text = "\n\n".join(part.removeprefix("ENTRY ") for one, part in parts.items() if one in needed)
        own = parts[name].removeprefix("ENTRY ")
        analysis = analysis_of(f"HloModule part\n\n{text}\n\nENTRY {own}\n")
        bodies = [parts[one] for one in (needed | {name})]
        searches = [search for body in bodies for search in searches_of(body)]
        exact = sum(map(exact_flops, bodies)) + sum(flops for flops, is_exact in searches if is_exact)
        flops = analysis.get("flops", 0.0) + sum(flops for flops, _ in searches)
        return Costs(flops, analysis.get("bytes accessed", 0.0), exact)

    return total(entry)


def analysis_of(text: str) -> dict[str, float]:
    """XLA's cost analysis of a program that no compiler of a platform has to know."""
    from jaxlib import _hlo  # pyright: ignore[reportAttributeAccessIssue]
    from jaxlib import _jax as xla  # pyright: ignore[reportAttributeAccessIssue]

    # Places in source files, which the parser would warn of.
    text = re.sub(r" stack_frame_id=\d+", "", text)
    return xla.hlo_module_cost_analysis(cpu_client(), _hlo.hlo_module_from_text(text))


@functools.cache
def cpu_client() -> Any:
    """Whom the analysis asks for the sizes of shapes."""
    return jax.devices("cpu")[0].client


def exact_flops(body: str) -> float:
    """Of the products at the highest precision in one computation."""
    shapes = dict(RESULT.findall(body))
    total = 0.0
    for result, left, contracted in EXACT_PRODUCT.findall(body):
        sizes = [int(size) for size in shapes.get(left, "").split(",") if size]
        inner = math.prod(sizes[int(axis)] for axis in contracted.split(",") if axis and sizes)
        total += 2.0 * inner * math.prod(int(size) for size in result.split(",") if size)
    return total


def searches_of(body: str) -> list[tuple[float, bool]]:
    """Of each search for the nearest code in one computation: its flops, and whether its products are exact.

    Its operands are the parts of vectors [b, n, d] and of codes [b, k, d]: three each for products exact to float32.
    """
    found = []
    for operands in SEARCH.findall(body):
        sizes = [[int(size) for size in shape.split(",")] for shape in re.findall(r"\[(\d+,\d+,\d+)\]", operands)]
        (num_batches, num_vectors, depth), (_, num_codes, _) = sizes[0], sizes[-1]
        found.append((2.0 * num_batches * num_vectors * num_codes * depth, len(sizes) == 6))
    for vectors, *sizes in UNCUT.findall(body):
        is_exact = re.search(rf"%?{re.escape(vectors)} = f32\[", body) is not None
        found.append((2.0 * math.prod(map(int, sizes)), is_exact))
    return found
