"""Two processes of two devices train as one process does, and checkpoints go from one device to four and back."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import devices, runs
from experiments.vqvae_pixelcnn.model import Model
from experiments.vqvae_pixelcnn.train import Config, Data, train

ROOT = Path(__file__).parent.parent
MODEL = Model(num_codes=64, hidden=8, residual_hidden=4, code_dim=4)


def config_of(directory, num_steps):
    return Config(directory, Data("digits"), MODEL, num_steps=num_steps, batch_size=8, save_every=3, log_every=1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(config, port, process):
    """One of two processes, each of two devices: the codebook is cut within a process, the batch between them."""
    given = {"out": config.out, "data.name": "digits", "num-steps": config.num_steps, "model-devices": 2}
    given |= {"batch-size": 8, "save-every": 3, "log-every": 1, "coordinator": f"127.0.0.1:{port}"}
    given |= {f"model.{name.replace('_', '-')}": getattr(MODEL, name) for name in ("num_codes", "hidden")}
    given |= {"model.residual-hidden": 4, "model.code-dim": 4, "num-processes": 2, "process": process}
    arguments = [f"--{name}={value}" for name, value in given.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.vqvae_pixelcnn", "train", *arguments, "--distributed"],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_train_as_one_does_and_hand_over_their_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: jax.devices()[:1])
    alone, together = tmp_path / "alone", tmp_path / "together"
    with jax.numpy_dtype_promotion("standard"):
        train(config_of(alone, 3))
        shutil.copytree(alone, together)
        port = free_port()
        processes = [start(config_of(together, 6), port, process) for process in (0, 1)]
        train(config_of(alone, 9))
        said = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
        assert '"loss"' in said[0][0]
        assert '"loss"' not in said[1][0], "one of them prints"
        assert [line["step"] for line in runs.read_metrics(together)] == [1, 2, 3, 4, 5, 6]
        assert sorted(path.name for path in (together / "checkpoints").iterdir()) == ["3", "6"]
        train(config_of(together, 9))
    for found, expected in zip(runs.read_metrics(together), runs.read_metrics(alone), strict=True):
        assert found["step"] == expected["step"]
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=2e-5)


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
