"""The layers of BERT over the axis ``model`` of a mesh: each device has some heads and some units of the inner layer.

A matrix that makes heads or inner units is cut by its columns, the one that takes them by its rows, so that what is in
between stays on one device, and a layer needs two sums over devices (Shoeybi et al., "Megatron-LM", 2019, section 3,
https://arxiv.org/abs/1909.08053). Tables of words, norms and heads of tasks are on every device.
"""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments import devices
from experiments.bert.model import Config, Parameters
from experiments.devices import MODEL

#: Of a layer: what makes features that are shared out, and what takes them.
COLUMNS, ROWS = ("query", "key", "value", "up"), ("output", "down")


def specs(parameters: Parameters) -> Any:
    """How each leaf is cut; the first axis of a layer's leaves is that of layers."""

    def spec(path: Any, leaf: jax.Array) -> P:
        names = [entry.name for entry in path]
        if names[:2] != ["encoder", "layers"] or names[2] not in COLUMNS + ROWS:
            return P()
        if names[2] in COLUMNS:
            return P(*[None] * (leaf.ndim - 1), MODEL)
        return P(None, MODEL) if names[3] == "weight" else P()

    return jax.tree_util.tree_map_with_path(spec, parameters)


def placed(parameters: Parameters, sizes: Config, mesh: Mesh) -> Parameters:
    """The parameters on the mesh.

    Raises:
      ValueError: if the axis ``model`` has a size that does not divide the number of heads and of inner units.
    """
    number = mesh.shape[MODEL]
    if number == 1:
        return devices.everywhere(mesh, parameters)
    if sizes.num_heads % number or sizes.mlp_dim % number:
        raise ValueError(
            f"model_devices must divide the {sizes.num_heads} heads and the {sizes.mlp_dim} inner units; got {number}"
        )
    return jax.tree.map(
        lambda leaf, spec: devices.place(leaf, NamedSharding(mesh, spec)), parameters, specs(parameters)
    )
