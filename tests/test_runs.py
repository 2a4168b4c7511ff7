"""A run that is killed at any moment and started again by the same command ends in the same bits."""

import dataclasses
import errno
import json
import os
import resource
import shutil
import tempfile
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from programs import needs_four_devices

from benchmarks import stress
from experiments import files, runs
from experiments.checkpoints import UNSUMMED, one_copy
from experiments.files import RunError, explained
from experiments.runs import Run


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


@needs_four_devices
def test_of_what_all_devices_have_one_copy_is_saved(tmp_path):
    """Planted and found: a copy of what is spread, which is a part of it."""
    mesh = Mesh(jax.devices(), ("all",))
    state = {"copies": jnp.arange(8.0), "key": jax.random.key(3), "spread": jnp.arange(8.0)}
    axes = {"copies": P(), "key": P(), "spread": P("all")}
    state = jax.device_put(state, {name: NamedSharding(mesh, axis) for name, axis in axes.items()})
    saved = jax.tree.map(one_copy, {**state, "count": 7})
    assert {name: len(leaf.sharding.device_set) for name, leaf in saved.items() if name != "count"} == {
        "copies": 1,
        "key": 1,
        "spread": len(jax.devices()),
    }
    with Run(tmp_path, Config()) as run:
        run.restore(state)
        run.save(1, state)
    with Run(tmp_path, Config()) as run:
        step, found = run.restore(state)
    assert step == 1
    chex.assert_trees_all_equal(found, state)
    assert jax.tree.map(lambda leaf: leaf.sharding, found) == jax.tree.map(lambda leaf: leaf.sharding, state)


def test_the_last_checkpoints_are_kept_and_no_more(tmp_path):
    saved(tmp_path, 1, 2, 3, 4)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "4"]


@pytest.mark.parametrize("how", ["truncated", "flipped", "gone", "no checksums"])
@pytest.mark.parametrize("which", range(-3, 3))
def test_a_damaged_checkpoint_is_passed_over_loudly(tmp_path, capsys, how, which):
    state = saved(tmp_path, 3, 6)
    checkpoint = tmp_path / "checkpoints" / "6"
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name not in UNSUMMED]
    file = sorted(files, key=lambda path: path.stat().st_size)[which]
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
        said = " ".join(capsys.readouterr().err.split())
        assert "checkpoint 6" in said
        assert "going on from checkpoint 3, which is whole" in said
        if file.name != "checksums.json":
            assert file.relative_to(checkpoint).as_posix() in said.replace(" ", "")
        assert [line["step"] for line in runs.read_metrics(tmp_path)] == [3]
        run.save(6, later(state, 6))
    with Run(tmp_path, Config()) as run:
        assert run.restore(state)[0] == 6
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", sorted(UNSUMMED))
def test_what_orbax_writes_last_may_be_damaged(tmp_path, name):
    """It has no checksum, and nothing of the state depends on it."""
    for content in (b"", b"{", None):
        state = saved(tmp_path, 3)
        file = tmp_path / "checkpoints" / "3" / name
        file.unlink() if content is None else file.write_bytes(content)
        with Run(tmp_path, Config()) as run:
            step, restored = run.restore(state)
        assert step == 3
        assert_same(restored, later(state, 3))
        shutil.rmtree(tmp_path / "checkpoints")
        (tmp_path / "metrics.jsonl").write_bytes(b"")


def test_another_layout_is_refused_with_what_to_do(tmp_path, monkeypatch):
    state = saved(tmp_path, 3)
    monkeypatch.setattr(runs, "LAYOUT", 2)
    message = "is of layout 1; this program reads layout 2: go on with the version .* that began the run, or move"
    with Run(tmp_path, Config()) as run, pytest.raises(RunError, match=message):
        run.restore(state)


def test_what_cannot_be_written_says_why(tmp_path, monkeypatch):
    """A limit on the size of files, and errors in a library's words; disks that are full: tests/test_full_disk.py."""
    state = saved(tmp_path, 3)

    def write(where):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        with Run(tmp_path, Config()) as run:
            assert run.restore(state)[0] == 3
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
            try:
                if where == "metrics":
                    run.log(6, loss=1)
                run.save(6, later(state, 6))
                run.close()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

    for where in ("checkpoint", "metrics"):
        with pytest.raises(RunError, match=r"a file would become larger .* when this is mended, the same command"):
            write(where)
    assert os.strerror(errno.ENOSPC) == "No space left on device"
    with pytest.raises(RunError, match="the disk is full"), explained(tmp_path):
        raise ValueError("RESOURCE_EXHAUSTED: write failed [OS error 28: No space left on device]")
    with Run(tmp_path, Config()) as run:
        assert run.restore(state)[0] == 3


def test_a_directory_that_is_read_only_says_so():
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        saved(directory, 3)
        (directory / "lock").chmod(0o444)
        directory.chmod(0o555)
        is_root = os.geteuid() == 0
        try:
            if is_root:  # who may write everywhere
                os.seteuid(65534)
            if not os.access(directory, os.R_OK, effective_ids=True):
                pytest.skip("no other user can read a temporary directory here")
            with pytest.raises(RunError, match="it may not be written by this user"):
                Run(directory, Config())
        finally:
            if is_root:
                os.seteuid(0)
            directory.chmod(0o755)


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
        with Run(tmp_path, Config()) as run, pytest.raises(RunError, match=message + ": go on with the version of the"):
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

    files.save_figure(tmp_path / "a.png", matplotlib.figure.Figure())
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    with pytest.raises(OSError, match="disk full"):
        files.save_figure(tmp_path / "a.png", Broken())
    assert (tmp_path / "a.png").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_progress_counts_on_from_where_it_was(capsys):
    with runs.progress("training", total=10, completed=4) as advance:
        advance(7, loss=0.25)
    assert "7/10" in capsys.readouterr().err


def test_killed_at_random_and_resumed_is_the_same_bit_for_bit(tmp_path):
    """Planted and found: metrics that are not cut back when a run is resumed."""
    counts = stress.stress(3, tmp_path, np.random.default_rng(1), num_steps=80)
    assert counts.kills == 3
    assert counts.damaged_latest == 0
    assert counts.lost == 0
    assert counts.survived == counts.trainings >= 1


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
