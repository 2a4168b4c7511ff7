"""Trains models that find triples in texts, and uses, compares and reports them.

    python -m experiments.information_extraction train --tiny --num-epochs 60 --out runs/tiny    # to see that it works
    python -m experiments.information_extraction predict --model runs/tiny/model --text "Acme is led by Ada ."
    python -m experiments.information_extraction VERB --help

See experiments/information_extraction/README.md for the files, the numbers to expect and the minutes.
"""

import json
import sys

from experiments import devices
from experiments.bert.bundle import CheckpointError
from experiments.bert.memory import keep_freed_memory
from experiments.bert.tokens import TokenError
from experiments.files import RunError
from experiments.information_extraction.collect import Collection, collect
from experiments.information_extraction.compare import Comparison, compare
from experiments.information_extraction.config import Config
from experiments.information_extraction.data import DataError
from experiments.information_extraction.download import Download, fetch
from experiments.information_extraction.predict import Prediction, predict
from experiments.information_extraction.train import main

VERBS = {
    "train": (Config, main),
    "predict": (Prediction, predict),
    "compare": (Comparison, compare),
    "collect": (Collection, collect),
    "download": (Download, fetch),
}


def run() -> None:
    """Runs one verb; what ``predict`` says beside its triples goes to standard error."""
    choices = {name: settings for name, (settings, _) in VERBS.items()}
    config = devices.command_line(choices, __doc__)
    keep_freed_memory()
    function = next(function for settings, function in VERBS.values() if type(config) is settings)
    try:
        result = function(config)
    except (CheckpointError, DataError, RunError, TokenError, ValueError) as error:
        sys.exit(str(error))
    if function is predict:
        print(json.dumps(result), file=sys.stderr)
    elif function is fetch:
        print(result)


if __name__ == "__main__":
    run()
