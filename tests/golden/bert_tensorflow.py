"""Writes a checkpoint by TensorFlow, laid out as Google's BERT: what ``tests/test_bert_files.py`` reads.

    python tests/golden/bert_tensorflow.py     # in an environment with tensorflow-cpu==2.21.0; writes bert_tensorflow/

A model of one layer and 4 features, whose weights are consecutive numbers (``value_of``), with an optimizer's moments
and a step, as training leaves them. It also reads back, with TensorFlow, a checkpoint that jaxlab wrote, if a prefix
is given: every tensor must be ``value_of`` its number and shape.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent / "bert_tensorflow"
D, MLP, WORDS, POSITIONS = 4, 6, 9, 5


def names() -> dict[str, tuple[int, ...]]:
    found = {
        "bert/embeddings/word_embeddings": (WORDS, D),
        "bert/embeddings/position_embeddings": (POSITIONS, D),
        "bert/embeddings/token_type_embeddings": (2, D),
        "bert/pooler/dense/kernel": (D, D),
        "bert/pooler/dense/bias": (D,),
        "cls/predictions/transform/dense/kernel": (D, D),
        "cls/predictions/transform/dense/bias": (D,),
        "cls/predictions/output_bias": (WORDS,),
        "cls/seq_relationship/output_weights": (2, D),
        "cls/seq_relationship/output_bias": (2,),
    }
    layer = "bert/encoder/layer_0"
    for name, shape in {
        "attention/self/query": (D, D),
        "attention/self/key": (D, D),
        "attention/self/value": (D, D),
        "attention/output/dense": (D, D),
        "intermediate/dense": (D, MLP),
        "output/dense": (MLP, D),
    }.items():
        found |= {f"{layer}/{name}/kernel": shape, f"{layer}/{name}/bias": shape[1:]}
    norms = ("bert/embeddings", f"{layer}/attention/output", f"{layer}/output", "cls/predictions/transform")
    found |= {f"{place}/LayerNorm/{part}": (D,) for place in norms for part in ("gamma", "beta")}
    return found


def value_of(number: int, shape: tuple[int, ...]) -> np.ndarray:
    """Consecutive numbers, from a thousand times the tensor's own on."""
    return (1000 * number + np.arange(np.prod(shape))).reshape(shape).astype(np.float32)


def write() -> None:
    HERE.mkdir(exist_ok=True)
    tensors = {name: value_of(number, shape) for number, (name, shape) in enumerate(sorted(names().items()))}
    tensors |= {f"{name}/adam_m": np.zeros_like(value) for name, value in list(tensors.items())[:2]}
    tensors["global_step"] = np.int64(7)
    tensor_names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(HERE / "bert_model.ckpt"),
        tensor_names=tensor_names,
        shape_and_slices=[""] * len(tensor_names),
        tensors=[tf.constant(tensors[name]) for name in tensor_names],
    )
    config = {
        "vocab_size": WORDS,
        "hidden_size": D,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": MLP,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
    }
    (HERE / "bert_config.json").write_text(json.dumps(config, indent=2) + "\n")
    print("written by TensorFlow", tf.__version__)


def read(prefix: str) -> None:
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    for number, name in enumerate(sorted(shapes)):
        np.testing.assert_array_equal(reader.get_tensor(name), value_of(number, tuple(shapes[name])), err_msg=name)
    print(f"TensorFlow {tf.__version__} reads all {len(shapes)} tensors")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        read(sys.argv[1])
    else:
        write()
