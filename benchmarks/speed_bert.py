"""How fast BERT encodes and is fine-tuned, beside bare matrix products and other libraries.

    python -m benchmarks.speed_bert            # ours beside the matrix products of the same shapes
    python -m benchmarks.speed_bert --peers    # also beside transformers on torch, and onnxruntime

The sizes are those of MiniLM (6 layers of 384 features), weights are random: 32 texts of 128 tokens in float32. Each
line is a ratio of times, measured in turn in one process on all cores. A training step is a loss of two classes, its
gradient, and AdamW; ours and torch's have dropout of 0.1.
"""

import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
import tyro
from jax import lax
from rich.progress import track
from rich.table import Table

from benchmarks.comparison import Comparison, measure
from experiments.bert import model, weights
from experiments.bert.memory import keep_freed_memory
from experiments.files import errors_told, write_json

SIZES = model.Config(30_522, 384, 6, 12, 1536)
BATCH, LENGTH = 32, 128
#: Our time over the other's, at most: encoding beside products, torch, onnxruntime; a step beside torch.
OVER_PRODUCTS, OVER_TORCH, OVER_ONNX, STEP_OVER_TORCH = 1 / 0.88, 1 / 1.9, 1 / 1.3, 1 / 1.15


@dataclass(frozen=True)
class Config:
    """Settings of the timings."""

    rounds: int = 40
    """Pairs of timed runs for a line of short ones; lines of long ones have fewer."""
    peers: bool = False
    """Also time other libraries that are installed."""
    out: Path = Path("benchmarks/results")
    """Directory that gets speed_bert.json."""


def data() -> tuple[model.Parameters, jax.Array, jax.Array]:
    """Random weights with a head of two classes, tokens without padding, and labels."""
    parameters = model.initial(jax.random.key(0), SIZES)._replace(masked=None)
    parameters = parameters._replace(head=model.initial_head(jax.random.key(1), SIZES, 2))
    ids = jax.random.randint(jax.random.key(2), (BATCH, LENGTH), 1000, SIZES.vocabulary_size)
    return parameters, ids, jnp.arange(BATCH) % 2


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@jax.jit
def encode(parameters: model.Parameters, ids: jax.Array) -> jax.Array:
    """Our encoding."""
    return model.encode(parameters.encoder, ids, jnp.ones(ids.shape, bool), config=SIZES)


@jax.jit
def bare_products(layers: model.Layer, embedded: jax.Array) -> jax.Array:
    """The matrix products of encoding, and no other arithmetic."""
    rows, d, h = BATCH * LENGTH, SIZES.hidden_dim, SIZES.num_heads
    stack = (BATCH * h, LENGTH, d // h)

    def body(x: jax.Array, layer: model.Layer) -> tuple[jax.Array, None]:
        query, key, value = ((x @ part.weight).reshape(stack) for part in (layer.query, layer.key, layer.value))
        logits = lax.dot_general(query, key, (((2,), (2,)), ((0,), (0,))))
        mixed = lax.dot_general(logits, value, (((2,), (1,)), ((0,), (0,)))).reshape(rows, d)
        return mixed @ layer.output.weight @ layer.up.weight @ layer.down.weight, None

    return lax.scan(body, embedded, layers)[0]


def training_step(parameters: model.Parameters, ids: jax.Array, labels: jax.Array) -> Callable[[], Any]:
    """Our step: it goes on from its own results, which it is given back to write over."""
    optimizer: Any = optax.adamw(1e-4)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(parameters: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
        def loss(parameters: Any) -> jax.Array:
            inner, last = jax.random.split(key)
            hidden = model.encode(parameters.encoder, ids, jnp.ones(ids.shape, bool), config=SIZES, key=inner)
            logits = model.classify(parameters, hidden, config=SIZES, key=last)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, after = optimizer.update(jax.grad(loss)(parameters), state, parameters)
        return optax.apply_updates(parameters, updates), after

    begun: Any = jax.tree.map(jnp.copy, parameters)
    kept, keys = [(begun, optimizer.init(begun))], iter(jax.random.split(jax.random.key(0), 10_000))

    def run() -> Any:
        kept[0] = step(*kept[0], next(keys))
        return kept[0][0].head

    return run


def lines() -> list[Comparison]:
    """Ours beside bare products."""
    parameters, ids, _ = data()
    embedded = model.embed(parameters.encoder, ids, config=SIZES).reshape(-1, SIZES.hidden_dim)
    products = partial(bare_products, parameters.encoder.layers, embedded)
    return [
        Comparison("encoding / bare matrix products", partial(encode, parameters, ids), products, OVER_PRODUCTS, 0.35)
    ]


def transformers_model(attention: str, directory: str) -> Any:
    """The same weights in transformers."""
    from transformers import AutoModel  # pyright: ignore[reportMissingImports]

    return AutoModel.from_pretrained(directory, attn_implementation=attention)


def torch_encoding(bert: Any, ids: np.ndarray) -> Callable[[], Any]:
    """Encoding by transformers."""
    import torch  # pyright: ignore[reportMissingImports]

    bert.eval()
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(ids.shape, dtype=torch.int64)}

    def run() -> Any:
        with torch.inference_mode():
            return bert(**inputs).last_hidden_state.numpy()

    return run


def onnx_encoding(bert: Any, ids: np.ndarray, directory: str) -> Callable[[], Any]:
    """Encoding by onnxruntime, of what torch exports."""
    import onnxruntime  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    class Hidden(torch.nn.Module):
        def forward(self, ids: Any, mask: Any) -> Any:
            return bert(input_ids=ids, attention_mask=mask).last_hidden_state

    inputs = torch.tensor(ids), torch.ones(ids.shape, dtype=torch.int64)
    path = str(Path(directory) / "model.onnx")
    torch.onnx.export(Hidden().eval(), inputs, path, input_names=["ids", "mask"], dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {"ids": inputs[0].numpy(), "mask": inputs[1].numpy()}
    return lambda: session.run(None, feeds)[0]


def torch_step(bert: Any, ids: np.ndarray, labels: np.ndarray) -> Callable[[], Any]:
    """A training step by transformers and torch, with dropout of 0.1."""
    import torch  # pyright: ignore[reportMissingImports]

    bert.train()
    head = torch.nn.Linear(SIZES.hidden_dim, 2)
    parameters = [*bert.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    inputs, targets = torch.tensor(ids), torch.tensor(labels, dtype=torch.int64)
    mask = torch.ones(ids.shape, dtype=torch.int64)

    def run() -> float:
        pooled = torch.nn.functional.dropout(bert(input_ids=inputs, attention_mask=mask).pooler_output, 0.1)
        loss = torch.nn.functional.cross_entropy(head(pooled), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss)

    return run


def peer_lines() -> list[Comparison]:
    """Beside transformers with both kinds of attention, and onnxruntime, as far as they are installed."""
    parameters, ids, labels = data()
    ours, numbers = partial(encode, parameters, ids), np.asarray(ids)
    expected, made = np.asarray(ours()), []
    with tempfile.TemporaryDirectory() as directory:
        weights.save(Path(directory), SIZES, parameters._replace(head=None))
        try:
            models = {kind: transformers_model(kind, directory) for kind in ("eager", "sdpa")}
        except ImportError as error:
            rich.print(f"[yellow]left out: transformers: {error}")
            return []
        others = {f"transformers, {kind}": (torch_encoding(bert, numbers), OVER_TORCH) for kind, bert in models.items()}
        try:
            others["onnxruntime"] = onnx_encoding(models["eager"], numbers, directory), OVER_ONNX
        except ImportError as error:
            rich.print(f"[yellow]left out: onnxruntime: {error}")
        for name, (other, aim) in others.items():
            np.testing.assert_allclose(other(), expected, atol=1e-3, err_msg=name)
            made.append(Comparison(f"encoding / {name}", ours, other, aim, 0.7))
        step = training_step(parameters, ids, labels)
        other_step = torch_step(transformers_model("sdpa", directory), numbers, np.asarray(labels))
        made.append(Comparison("step / torch, sdpa", step, other_step, STEP_OVER_TORCH, 2.5))
    return made


def main(config: Config) -> dict[str, Any]:
    """Measures every line, prints the table, writes ``speed_bert.json``."""
    chosen = lines() + (peer_lines() if config.peers else [])
    rows = [measure(comparison, config.rounds) for comparison in track(chosen, "timing")]
    table = Table("comparison", "ratio", "quartiles", "aim", "ours, ms", "other, ms")
    for row in rows:
        low, high = row["quartiles"]
        times = (f"{row['milliseconds']:.0f}", f"{row['milliseconds_other']:.0f}")
        table.add_row(row["name"], f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['aim']:.2f}", *times)
    rich.print(table)
    results = {
        "rows": rows,
        "device": jax.devices()[0].device_kind,
        "cores": cores(),
        "load": os.getloadavg()[0],
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    write_json(config.out / "speed_bert.json", results)
    return results


if __name__ == "__main__":
    keep_freed_memory()
    with errors_told():
        main(tyro.cli(Config, description=__doc__))
