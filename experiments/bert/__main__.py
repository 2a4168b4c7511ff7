"""Fine-tunes BERT on labelled texts, or trains it on masked words, in one command.

    python -m experiments.bert                                            # real sentences, real model, if installed
    python -m experiments.bert --model DIR --task classification --train FILE --test FILE
    python -m experiments.bert --task masked --train text.txt             # a text a line
    python -m experiments.bert --tiny --out runs/tiny                     # to see that it works

See experiments/bert/README.md for the files, the numbers to expect and the minutes.
"""

import sys

from experiments import devices
from experiments.bert.bundle import CheckpointError
from experiments.bert.config import Config
from experiments.bert.data import DataError
from experiments.bert.memory import keep_freed_memory
from experiments.bert.tokens import TokenError
from experiments.bert.train import main
from experiments.files import RunError

if __name__ == "__main__":
    keep_freed_memory()
    try:
        main(devices.command_line(Config, __doc__))
    except (CheckpointError, DataError, RunError, TokenError, ValueError) as error:
        sys.exit(str(error))
