"""Logical inference: train on formulas of at most 6 operators, be asked about those of up to 12.

    python -m experiments.onlstm.logic --out runs/logic                         # generated data, all encoders
    python -m experiments.onlstm.logic --out runs/logic --config.data DIR       # the files train0 ... test12
    python -m experiments.onlstm.logic --out runs/quick --tiny                  # a minute, to see that it works

For each encoder and seed one run in a directory of its own, which goes on where it was killed; then a table and a
figure of accuracy by the number of operators, beside the share of the most frequent relation. Published for 7 ... 12
operators (Sparse Universal Transformer, table of its paper): LSTM 88 84 80 78 71 69, Transformer 51 52 51 51 51 48.

Reference: Bowman, Manning, Potts, "Tree-structured composition in neural networks without tree-structured
architectures", 2015, https://arxiv.org/abs/1506.04834; Shen et al., "Ordered Neurons", 2019, section 5.4.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import rich

from experiments import devices
from experiments.files import errors_told
from experiments.onlstm import classification, logic_data
from experiments.onlstm.classification import Arguments, Config, Task
from experiments.onlstm.sentences import Split, split_examples


@functools.cache
def load_data(data: Path | None, num_draws: int, maximal_operators: int) -> Split:
    """Training pairs of few operators, every tenth of them for validation, and test pairs of any number."""
    if data is None:
        rich.print(
            f"[bold yellow]generated pairs ({num_draws} draws), not those of the paper: --config.data gives them"
        )
        train, test = logic_data.generate(0, num_draws)
    else:
        train, test = logic_data.load(data)
    return split_examples(logic_data.encode(train), logic_data.encode(test), maximal_operators)


LOGIC = Task(
    name="logic",
    tokens=logic_data.TOKENS,
    num_labels=len(logic_data.RELATIONS),
    num_sentences=2,
    load=lambda config: load_data(config.data, config.num_draws, config.maximal_bin),
    bin_name="operators in the longer formula",
    tiny=Config(num_draws=2_000, num_epochs=2, embedding_dim=16, hidden_dim=32, chunk_size=4, batch_size=64),
)


@dataclass(frozen=True)
class LogicArguments(Arguments):
    """Which runs to make."""

    out: Path = Path("runs/logic")
    """Directory of the runs, the tables and the figures."""


if __name__ == "__main__":
    with errors_told():
        classification.compare(LOGIC, devices.command_line(LogicArguments, __doc__))
