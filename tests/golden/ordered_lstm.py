"""Records an ordered LSTM in PyTorch, values and gradients: what ``tests/test_ordered.py`` compares with.

    python tests/golden/ordered_lstm.py    # in an environment with torch==2.13.0 and numpy; writes ordered_lstm.npz

The cell is written down from the equations of Shen et al., "Ordered Neurons", 2019, and knows nothing of jaxlab: gate
by gate, a loop over time, gradients by torch's automatic differentiation. The order of the rows is that of the authors'
weights: input master gate, forget master gate (one row a level), then output, cell, input, forget (one row a unit).
"""

from pathlib import Path

import numpy as np
import torch

STEPS, BATCH, INPUT_DIM, HIDDEN_DIM, CHUNK_SIZE = 6, 3, 4, 12, 3
LEVELS = HIDDEN_DIM // CHUNK_SIZE


def cumax(logits: torch.Tensor) -> torch.Tensor:
    return torch.cumsum(torch.softmax(logits, -1), -1)


def step(total: torch.Tensor, memory: torch.Tensor, inclusive: bool) -> tuple[torch.Tensor, ...]:
    master_input, master_forget, output, cell, write, forget = torch.split(
        total, [LEVELS, LEVELS, HIDDEN_DIM, HIDDEN_DIM, HIDDEN_DIM, HIDDEN_DIM], -1
    )
    forget_levels = cumax(master_forget)
    from_the_end = torch.flip(cumax(torch.flip(master_input, [-1])), [-1])
    input_levels = from_the_end if inclusive else 1 - cumax(master_input)
    distances = 1 - forget_levels.mean(-1), input_levels.mean(-1)
    forget_levels, input_levels = (x.repeat_interleave(CHUNK_SIZE, -1) for x in (forget_levels, input_levels))
    overlap = forget_levels * input_levels
    forget = torch.sigmoid(forget) * overlap + (forget_levels - overlap)
    write = torch.sigmoid(write) * overlap + (input_levels - overlap)
    memory = forget * memory + write * torch.tanh(cell)
    return torch.sigmoid(output) * torch.tanh(memory), memory, *distances


def record(dtype: torch.dtype, inclusive: bool) -> dict[str, np.ndarray]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype).requires_grad_()

    rows = 2 * LEVELS + 4 * HIDDEN_DIM
    arguments = {
        "ih_weight": draw(rows, INPUT_DIM),
        "ih_bias": draw(rows),
        "hh_weight": draw(rows, HIDDEN_DIM),
        "hh_bias": draw(rows),
        "inputs": draw(STEPS, BATCH, INPUT_DIM),
        "hidden": draw(BATCH, HIDDEN_DIM),
        "memory": draw(BATCH, HIDDEN_DIM),
    }
    hidden, memory = arguments["hidden"], arguments["memory"]
    outputs = []
    for x in arguments["inputs"]:
        total = torch.nn.functional.linear(x, arguments["ih_weight"], arguments["ih_bias"])
        total = total + torch.nn.functional.linear(hidden, arguments["hh_weight"], arguments["hh_bias"])
        hidden, memory, *distances = step(total, memory, inclusive)
        outputs.append((hidden, *distances))
    results = [torch.stack(output) for output in zip(*outputs, strict=True)] + [memory]
    names = ("outputs", "forget_distances", "input_distances", "last_memory")
    # Another weight for each number, so that no two errors cancel.
    loss = sum(
        (result * torch.cos(torch.arange(result.numel(), dtype=dtype) + number).reshape(result.shape)).sum()
        for number, result in enumerate(results)
    )
    loss.backward()
    recorded = {f"argument_{name}": value.detach().numpy() for name, value in arguments.items()}
    recorded |= {f"gradient_{name}": value.grad.numpy() for name, value in arguments.items()}
    return recorded | {name: result.detach().numpy() for name, result in zip(names, results, strict=True)}


if __name__ == "__main__":
    # In float64, and stored so: what it is compared with has its own rounding alone.
    rows = {
        f"{gate}_{name}": value
        for gate, inclusive in (("paper", False), ("inclusive", True))
        for name, value in record(torch.float64, inclusive).items()
    }
    np.savez_compressed(Path(__file__).with_suffix(".npz"), torch_version=torch.__version__, **rows)
