"""Values of other libraries for ``tests/test_quantize_codes.py``; in an environment with the extra ``peers``.

python tests/golden/quantize.py
"""

import importlib.metadata
import json
import warnings
from pathlib import Path

import haiku as hk
import jax
import numpy as np
import torch
from vector_quantize_pytorch import FSQ, VectorQuantize

FEATURES, CODES, DECAY, STEPS = 4, 6, 0.9, 3


def batches():
    return np.random.default_rng(0).normal(size=(STEPS + 1, 40, FEATURES)).astype(np.float32)


def listed(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), tree)


def haiku_case():
    quantizer = hk.transform_with_state(
        lambda x: hk.nets.VectorQuantizerEMA(FEATURES, CODES, commitment_cost=0.25, decay=DECAY)(x, is_training=True)
    )
    first, *rest = batches()
    _, state = quantizer.init(jax.random.key(0), first)
    # One step, so that every code has been hit: those that never were are zero vectors there.
    _, state = quantizer.apply({}, state, None, first)
    assert all(float(count) > 0 for count in state["vector_quantizer_ema/~/ema_cluster_size"]["hidden"])
    case = {"x": listed(rest), "values": [], "codes": [], "loss": [], "states": [listed(dict(state))]}
    for x in rest:
        out, state = quantizer.apply({}, state, None, x)
        assert len(np.unique(out["encoding_indices"])) == CODES
        for name, value in (("values", "quantize"), ("codes", "encoding_indices"), ("loss", "loss")):
            case[name].append(listed(out[value]))
        case["states"].append(listed(dict(state)))
    return case


def vector_quantize_pytorch_case():
    torch.manual_seed(0)
    quantizer = VectorQuantize(
        FEATURES, codebook_size=CODES, decay=DECAY, commitment_weight=0.25, rotation_trick=False, kmeans_init=False
    )
    first, *rest = batches()

    def state():
        return {name: value.tolist() for name, value in quantizer.state_dict().items() if name.startswith("_codebook")}

    with torch.no_grad():  # a codebook on the scale of the data, whose averages agree with it
        book = quantizer._codebook
        book.embed.copy_(torch.tensor(first[None, :CODES]))
        book.embed_avg.copy_(book.embed)
    case = {"x": listed(rest), "values": [], "codes": [], "loss": [], "states": [state()]}
    quantizer.train()
    for x in rest:
        values, codes, loss = quantizer(torch.tensor(x)[None])
        case["values"].append(values[0].tolist())
        case["codes"].append(codes[0].tolist())
        case["loss"].append(float(loss.sum()))
        case["states"].append(state())
    return case


def finite_scalar_cases():
    cases = []
    for levels in ([8, 5, 5, 5], [7, 5, 4, 3], [8, 6, 5, 3]):
        for symmetric in (False, True):
            x = 2 * np.random.default_rng(1).normal(size=(50, len(levels))).astype(np.float32)
            quantizer = FSQ(levels, preserve_symmetry=symmetric, noise_dropout=0.0)
            values, codes = quantizer(torch.tensor(x)[None])
            row = {"levels": levels, "symmetric": symmetric, "x": x.tolist()}
            cases.append(row | {"values": values[0].tolist(), "codes": codes[0].tolist()})
    return cases


def main():
    warnings.simplefilter("ignore")
    names = ("dm-haiku", "vector-quantize-pytorch", "torch", "jax")
    golden = {
        "versions": {name: importlib.metadata.version(name) for name in names},
        "cases": {
            "haiku": haiku_case(),
            "vector_quantize_pytorch": vector_quantize_pytorch_case(),
            "finite_scalar": finite_scalar_cases(),
        },
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
