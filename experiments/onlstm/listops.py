"""ListOps: train on lists of at most 4 levels of operators, be asked about those of up to 10 and more.

    python -m experiments.onlstm.listops --out runs/listops             # all encoders
    python -m experiments.onlstm.listops --out runs/quick --tiny        # a minute, to see that it works

The data are generated. For each encoder and seed one run in a directory of its own, which goes on where it was killed;
then a table and a figure of accuracy by the number of levels, beside the share of the most frequent value.

Reference: Nangia, Bowman, "ListOps: A Diagnostic Dataset for Latent Tree Learning", 2018,
https://arxiv.org/abs/1804.06028.
"""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments import devices
from experiments.files import errors_told
from experiments.onlstm import classification, listops_data
from experiments.onlstm.classification import Arguments, Config, Task
from experiments.onlstm.sentences import Split, split_examples


@functools.cache
def load_data(num_draws: int, maximal_levels: int) -> Split:
    """Training expressions of few levels, every tenth of them for validation, and test expressions of any number."""
    train, test = map(listops_data.encode, listops_data.generate(0, num_draws))
    return split_examples(train, test, maximal_levels)


def load(config: Config) -> Split:
    """The data of a configuration."""
    if config.data is not None:
        raise ValueError(f"ListOps is generated: data must be None; got {config.data}")
    return load_data(config.num_draws, config.maximal_bin)


DEFAULT = Config(num_draws=150_000, num_epochs=20, maximal_bin=4)
LISTOPS = Task(
    name="listops",
    tokens=listops_data.TOKENS,
    num_labels=10,
    num_sentences=1,
    load=load,
    bin_name="levels of operators",
    tiny=dataclasses.replace(
        DEFAULT, num_draws=2_000, num_epochs=2, embedding_dim=16, hidden_dim=32, chunk_size=4, batch_size=64
    ),
)


@dataclass(frozen=True)
class ListopsArguments(Arguments):
    """Which runs to make."""

    out: Path = Path("runs/listops")
    """Directory of the runs, the tables and the figures."""
    rounds: tuple[int, ...] = (DEFAULT.num_epochs,)
    """Epochs that all runs are trained to, one number after the other: a table comes after each."""
    config: tyro.conf.OmitSubcommandPrefixes[Config] = DEFAULT
    """Settings of all runs."""


if __name__ == "__main__":
    with errors_told():
        classification.compare(LISTOPS, devices.command_line(ListopsArguments, __doc__))
