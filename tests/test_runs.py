"""A run that is killed at any moment and started again by the same command ends in the same bits."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import pytest

from experiments import runs
from experiments.runs import Run, RunError


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 0.1
    hidden: tuple[int, ...] = (3, 4)
    directory: Path = Path("somewhere")
    num_steps: int = 10


def initial_state(size=300):
    params = {"weights": jnp.linspace(0, 1, size), "biases": jnp.ones(2, jnp.bfloat16)}
    return params, optax.adam(0.1).init(params), jax.random.key(0), jax.random.split(jax.random.key(1), 2), 7, None


def later(state, step):
    """Another state of the same structure."""
    params, optimizer_state, key, keys, number, nothing = state
    return (
        jax.tree.map(lambda p: p + step, params),
        optimizer_state,
        jax.random.clone(key),
        keys,
        number + step,
        nothing,
    )


def assert_same(a, b):
    def raw(leaf):
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(jax.random.clone(leaf)) if is_key else leaf)

    chex.assert_trees_all_equal(jax.tree.map(raw, a), jax.tree.map(raw, b), strict=True)


def saved(directory, *steps):
    """A run with a checkpoint at each of the steps; the initial state."""
    state = initial_state()
    with Run(directory, Config()) as run:
        run.restore(state)
        for step in steps:
            run.log(step, loss=1 / step)
            run.save(step, later(state, step))
    return state


def test_a_state_comes_back_as_it_was(tmp_path):
    state = initial_state()
    with Run(tmp_path, Config()) as run:
        step, same = run.restore(state)
        assert step == 0
        assert same is state
    saved(tmp_path, 3, 6)
    with Run(tmp_path, Config()) as run:
        step, restored = run.restore(state)
    assert step == 6
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert_same(restored, later(state, 6))


def test_sharding_is_that_of_the_state_asked_for(tmp_path):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    state = {"x": jax.device_put(jnp.arange(8.0), sharding)}
    with Run(tmp_path, Config()) as run:
        run.restore(state)
        run.save(1, state)
    with Run(tmp_path, Config()) as run:
        _, restored = run.restore({"x": jax.device_put(jnp.zeros(8), sharding)})
    assert restored["x"].sharding == sharding
    assert_same(restored, state)


def test_the_last_checkpoints_are_kept_and_no_more(tmp_path):
    saved(tmp_path, 1, 2, 3, 4)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "4"]


@pytest.mark.parametrize("how", ["truncated", "flipped", "gone", "no checksums"])
@pytest.mark.parametrize("which", range(-3, 3))
def test_a_damaged_checkpoint_is_passed_over_loudly(tmp_path, capsys, how, which):
    state = saved(tmp_path, 3, 6)
    checkpoint = tmp_path / "checkpoints" / "6"
    file = sorted((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)[
        which
    ]
    file = checkpoint / "checksums.json" if how == "no checksums" else file
    content = file.read_bytes()
    if how in ("truncated", "flipped"):
        half = len(content) // 2
        file.write_bytes(
            content[:half] + (b"" if how == "truncated" else bytes([content[half] ^ 1]) + content[half + 1 :])
        )
    else:
        file.unlink()
    with Run(tmp_path, Config()) as run:
        step, restored = run.restore(state)
        assert step == 3
        assert_same(restored, later(state, 3))
        assert "checkpoint 6" in capsys.readouterr().err
        assert [line["step"] for line in runs.read_metrics(tmp_path)] == [3]
        run.save(6, later(state, 6))
    with Run(tmp_path, Config()) as run:
        assert run.restore(state)[0] == 6
    assert capsys.readouterr().err == ""


def test_when_all_checkpoints_are_damaged_nothing_is_overwritten(tmp_path):
    state = saved(tmp_path, 3, 6)
    for step in (3, 6):
        (tmp_path / "checkpoints" / str(step) / "checksums.json").unlink()
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    with Run(tmp_path, Config()) as run, pytest.raises(RunError, match=r"no checkpoint .* is whole"):
        run.restore(state)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


def test_half_of_a_save_is_no_checkpoint(tmp_path):
    state = saved(tmp_path, 3)
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(checkpoints / "3", checkpoints / "6.orbax-checkpoint-tmp-0")
    with Run(tmp_path, Config()) as run:
        assert run.restore(state)[0] == 3
    assert [path.name for path in checkpoints.iterdir()] == ["3"]


def test_another_state_is_refused_by_leaf(tmp_path):
    state = saved(tmp_path, 3)
    others = {
        r"state\[0\]\['weights'\] must be float32\[299\]; got float32\[300\]": initial_state(size=299),
        r"state\[3\] must be absent; got key<fry>\[2\]": state[:3],
        r"state\[6\] must be int; got absent": (*state, 1),
        r"\['biases'\] must be float32\[2\]; got bfloat16\[2\]": jax.tree.map(
            lambda leaf: leaf.astype(jnp.float32) if getattr(leaf, "dtype", None) == jnp.bfloat16 else leaf, state
        ),
    }
    for message, other in others.items():
        with Run(tmp_path, Config()) as run, pytest.raises(ValueError, match=message):
            run.restore(other)


def test_another_config_is_refused_by_field(tmp_path):
    Run(tmp_path, Config()).close()
    Run(tmp_path, Config()).close()
    assert json.loads((tmp_path / "config.json").read_text())["hidden"] == [3, 4]
    with pytest.raises(RunError, match=r"rate = 0.1, and it is 0.2"):
        Run(tmp_path, Config(rate=0.2))
    with pytest.raises(RunError, match=r"hidden = \[3, 4\]"):
        Run(tmp_path, Config(hidden=(3,)))
    with pytest.raises(RunError, match="num_steps"):
        Run(tmp_path, Config(num_steps=20))
    Run(tmp_path, Config(num_steps=20), changeable=["num_steps"]).close()
    assert json.loads((tmp_path / "config.json").read_text())["num_steps"] == 20


def test_one_process_at_a_time(tmp_path):
    with Run(tmp_path, Config()), pytest.raises(RunError, match="another process"):
        Run(tmp_path, Config())
    Run(tmp_path, Config()).close()


def test_metrics_are_numbers_in_json(tmp_path):
    with Run(tmp_path, Config()) as run:
        with pytest.raises(RunError, match="restore must be called first"):
            run.log(1, loss=0)
        run.restore(None)
        run.log(1, loss=jnp.float32(0.5), seeds=jnp.array([1.0, jnp.nan]), rate=np.inf)
        run.log(2, loss=3)
    first, second = runs.read_metrics(tmp_path)
    assert first == {"step": 1, "loss": 0.5, "seeds": [1, None], "rate": None}
    assert second == {"step": 2, "loss": 3}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # a line that is being written
    assert runs.read_metrics(tmp_path) == [first, second]


def test_lines_after_the_checkpoint_are_cut_off(tmp_path):
    state = saved(tmp_path, 3)
    with Run(tmp_path, Config()) as run:
        run.restore(state)
        run.log(4, loss=0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5')
    with Run(tmp_path, Config()) as run:
        run.restore(state)
        run.log(4, loss=1)
    assert [line["loss"] for line in runs.read_metrics(tmp_path)] == [1 / 3, 1]
    (tmp_path / "metrics.jsonl").write_text("")
    with Run(tmp_path, Config()) as run, pytest.raises(RunError, match="has lost lines"):
        run.restore(state)


def test_figures_are_written_whole(tmp_path):
    class Broken(matplotlib.figure.Figure):
        def savefig(self, file, **_):
            file.write(b"half")
            raise OSError("disk full")

    runs.save_figure(tmp_path / "a.png", matplotlib.figure.Figure())
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    with pytest.raises(OSError, match="disk full"):
        runs.save_figure(tmp_path / "a.png", Broken())
    assert (tmp_path / "a.png").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_progress_counts_on_from_where_it_was(capsys):
    with runs.progress("training", total=10, completed=4) as advance:
        advance(7, loss=0.25)
    assert "7/10" in capsys.readouterr().err


PROGRAM = """
    import sys, time
    from dataclasses import dataclass
    from pathlib import Path
    import jax, jax.numpy as jnp, optax
    from experiments.runs import Run

    @dataclass(frozen=True)
    class Config:
        num_steps: int = 40

    @jax.jit
    def train_step(state):
        params, optimizer_state, key = state
        key, noise_key = jax.random.split(key)
        target = jax.random.normal(noise_key, params.shape)
        value, gradient = jax.value_and_grad(lambda params: jnp.sum((params - target) ** 2))(params)
        updates, optimizer_state = optax.adam(0.1).update(gradient, optimizer_state)
        return (optax.apply_updates(params, updates), optimizer_state, key), value

    params = jnp.zeros(50)
    with Run(Path(sys.argv[1]), Config()) as run:
        step, state = run.restore((params, optax.adam(0.1).init(params), jax.random.key(0)))
        while step < 40:
            step += 1
            state, value = train_step(state)
            run.log(step, loss=value)
            time.sleep(float(sys.argv[2]))
            if step % 4 == 0:
                run.save(step, state)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "train.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return path


def start(program, directory, pause):
    environment = os.environ | {"PYTHONPATH": str(Path(runs.__file__).parents[1]), "PYTHONWARNINGS": "error"}
    return subprocess.Popen([sys.executable, program, str(directory), str(pause)], env=environment)


def test_killed_and_resumed_is_the_same_bit_for_bit(tmp_path, program):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    uninterrupted = start(program, whole, 0)
    for num_lines in (7, 18, 30):  # between checkpoints, which are made at multiples of 4
        process = start(program, killed, 0.03)
        deadline = time.monotonic() + 60
        while len(runs.read_metrics(killed)) < num_lines:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(runs.read_metrics(killed)) < 40
    assert start(program, killed, 0).wait(60) == 0
    assert uninterrupted.wait(60) == 0
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    params = jnp.zeros(50)
    like = (params, optax.adam(0.1).init(params), jax.random.key(0))

    @dataclasses.dataclass(frozen=True)
    class ItsConfig:
        num_steps: int = 40

    ends = []
    for directory in (whole, killed):
        with Run(directory, ItsConfig()) as run:
            ends.append(run.restore(like))
    assert ends[0][0] == ends[1][0] == 40
    assert_same(ends[0][1], ends[1][1])


def test_tensorboard_hides_what_was_logged_after_the_checkpoint(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    with Run(tmp_path, Config()) as run:  # ends before its first checkpoint
        run.restore(None)
        run.log(2, loss=0.25)
    state = saved(tmp_path, 3)
    with Run(tmp_path, Config()) as run:
        run.restore(state)
        run.log(4, loss=0.5)
    shown = {}
    for path in sorted((tmp_path / "events").iterdir()):
        content, position = path.read_bytes(), 0
        while position < len(content):
            # A record is its length, a checksum of four bytes, the event, and another checksum.
            length = int.from_bytes(content[position : position + 8], "little")
            event = Event.FromString(content[position + 12 : position + 12 + length])
            position += 16 + length
            if event.HasField("session_log") and event.session_log.status == event.session_log.START:
                shown = {step: value for step, value in shown.items() if step < event.step}
            for value in event.summary.value:
                shown[event.step] = value.simple_value
    assert shown == {3: pytest.approx(1 / 3), 4: 0.5}
