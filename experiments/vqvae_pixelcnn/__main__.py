"""``python -m experiments.vqvae_pixelcnn train | prior | sample | evaluate``: see README.md."""

import json
import sys

from experiments import devices
from experiments.files import RunError
from experiments.images import DataError
from experiments.vqvae_pixelcnn.evaluate import Evaluation, evaluate
from experiments.vqvae_pixelcnn.fit_prior import PriorConfig, fit_prior
from experiments.vqvae_pixelcnn.sample import Sampling, sample
from experiments.vqvae_pixelcnn.train import Config, train

VERBS = {
    "train": (Config, train),
    "prior": (PriorConfig, fit_prior),
    "sample": (Sampling, sample),
    "evaluate": (Evaluation, evaluate),
}


def main() -> None:
    """Runs one verb and prints its results as JSON."""
    choices = {name: settings for name, (settings, _) in VERBS.items()}
    config = devices.command_line(choices, __doc__)
    run = next(function for settings, function in VERBS.values() if type(config) is settings)
    try:
        print(json.dumps(run(config), indent=1))
    except (DataError, RunError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
