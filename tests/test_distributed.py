"""Two processes train and evaluate as one process does, and checkpoints go from one device to four and back.

Found: a file that every process read as soon as the first one was to have written it.
"""

import dataclasses
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import devices, runs
from experiments.information_extraction import train as extraction
from experiments.information_extraction.config import Config as ExtractionConfig
from experiments.onlstm import classification, listops
from experiments.vqvae_pixelcnn import __main__ as vqvae
from experiments.vqvae_pixelcnn import fit_prior, priors
from experiments.vqvae_pixelcnn.model import Model
from experiments.vqvae_pixelcnn.train import Config, Data, train

ROOT = Path(__file__).parent.parent
MODEL = Model(num_codes=64, hidden=8, residual_hidden=4, code_dim=4)
# What Gloo, which connects them, writes for each, in pieces that may be torn apart.
CONNECTED = "Gloo Rank is connected to peer ranks Expected number of"
TEXTS = [
    {"text": "Ada was born in Paris .", "spo_list": [["Ada", "birthplace", "Paris"]]},
    {"text": "Kurt leads Acme .", "spo_list": [["Acme", "leader", "Kurt"]]},
    {"text": "Emmy never met Kurt .", "spo_list": []},
    {"text": "Blue Mills is led by Emmy .", "spo_list": [["Blue Mills", "leader", "Emmy"]]},
]


def config_of(directory, num_steps):
    return Config(directory, Data("digits"), MODEL, num_steps=num_steps, batch_size=8, save_every=4, log_every=1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(config, port, process):
    """One of two processes, each of two devices: the codebook is cut within a process, the batch between them."""
    given = {"out": config.out, "data.name": "digits", "num-steps": config.num_steps, "model-devices": 2}
    given |= {"batch-size": 8, "save-every": 4, "log-every": 1, "coordinator": f"127.0.0.1:{port}"}
    given |= {f"model.{name.replace('_', '-')}": getattr(MODEL, name) for name in ("num_codes", "hidden")}
    given |= {"model.residual-hidden": 4, "model.code-dim": 4, "num-processes": 2, "process": process}
    arguments = [f"--{name}={value}" for name, value in given.items()]
    return subprocess.Popen(
        [sys.executable, __file__, "train", *arguments, "--distributed"],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": os.fspath(ROOT)},
        cwd=config.out.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def others(directory, texts):
    """The trainings beside the auto-encoder's, and the evaluations at their ends, below a directory."""
    small = functools.partial(priors.PRIORS["pixelcnn"], hidden=8, num_layers=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(priors.PRIORS, "pixelcnn", small)
        config = fit_prior.PriorConfig(directory / "prior", directory / "vqvae", num_steps=3, batch_size=4, log_every=1)
        fit_prior.fit_prior(config)
    task = listops.LISTOPS
    small = {"num_draws": 900, "embedding_dim": 4, "hidden_dim": 8, "num_epochs": 1, "encoder": "lstm"}
    classification.main(task, dataclasses.replace(task.tiny, **small), directory / "lists")
    small = {
        "decoder": "global",
        "tiny": True,
        "num_epochs": 40,
        "evaluate_every": 40,
        "batch_size": 4,
        "max_length": 8,
        "dim": 16,
        "num_layers": 1,
    }
    extraction.main(ExtractionConfig(directory / "extraction", train=texts, valid=texts, test=texts, **small))


def same_numbers(found, expected, tolerance):
    """Of two lists of metrics."""
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=tolerance, err_msg=name)


def found_in(directory):
    """The triples of each text."""
    lines = (directory / "predictions_test.jsonl").read_text().splitlines()
    return [[(t["subject"], t["predicate"], t["object"]) for t in json.loads(line)["predicted"]] for line in lines]


def test_two_processes_train_as_one_does_and_hand_over_their_checkpoints(tmp_path, monkeypatch):
    """One device trains to step 8; two processes go from its step 4 to 7, and one device from there to 8."""
    monkeypatch.setattr(devices, "available", lambda: jax.devices()[:1])
    alone, together, one, two = (tmp_path / name for name in ("alone", "together", "one", "two"))
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in TEXTS))
    with jax.numpy_dtype_promotion("standard"):
        train(config_of(alone, 8))
        for copy in (together, one / "vqvae", two / "vqvae"):
            shutil.copytree(alone, copy)
        shutil.rmtree(together / "checkpoints" / "8")
        port = free_port()
        processes = [start(config_of(together, 7), port, process) for process in (0, 1)]
        others(one, tmp_path / "texts.jsonl")
        said = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
        assert '"loss"' in said[0][0]
        assert set(re.findall("[A-Za-z]+", said[1][0])) <= set(CONNECTED.split()), "one of them prints"
        assert [line["step"] for line in runs.read_metrics(together)] == [1, 2, 3, 4, 5, 6, 7]
        assert sorted(path.name for path in (together / "checkpoints").iterdir()) == ["4", "7"]
        train(config_of(together, 8))
    same_numbers(runs.read_metrics(together), runs.read_metrics(alone), 2e-5)
    for name in ("prior", "lists", "extraction"):
        same_numbers(runs.read_metrics(two / name), runs.read_metrics(one / name), 1e-3)
    assert (two / "lists/result-1.json").read_text() == (one / "lists/result-1.json").read_text()
    assert found_in(two / "extraction") == found_in(one / "extraction")
    kept = {path.relative_to(one) for path in one.rglob("*") if path.is_file() and "checkpoints" not in path.parts}
    assert {two / path for path in kept if "events" not in path.parts} <= set(two.rglob("*"))


def test_a_command_line_that_is_no_cluster_says_what_is_missing(capsys, monkeypatch):
    assert devices.start(["--num-steps", "3"]) == ["--num-steps", "3"]
    for arguments, message in {
        ("--process", "1"): "are for --distributed",
        ("--distributed", "--process", "1"): "come together, or none of them",
    }.items():
        with pytest.raises(SystemExit):
            devices.start(arguments)
        assert message in capsys.readouterr().err

    def initialize(*_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(SystemExit, match=r"no cluster that JAX knows .*coordinator_addr(.|\n)*--coordinator HOST"):
        devices.start(["--distributed"])
    with pytest.raises(ValueError, match="num_model must divide the number of devices, 4; got 3"):
        devices.mesh(8, 3)
    assert dict(devices.mesh(6).shape) == {"batch": 2, "model": 1}
    assert "batch_size should be a multiple of 4" in capsys.readouterr().out


if __name__ == "__main__":
    vqvae.main()
    others(Path("two"), Path("texts.jsonl"))
