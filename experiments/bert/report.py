"""What a run says at its end: what could not be used, how good the model is, the predictions, a figure."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rich

from experiments import devices
from experiments.bert import tasks, weights
from experiments.bert.data import Problem
from experiments.files import write_atomically

if TYPE_CHECKING:
    from experiments.bert.train import Trainer, TrainState


def report_problems(directory: Path, trainer: "Trainer") -> None:
    """Prints and lists what could not be used: lines, labels unknown to the training, what the model's length cuts."""
    found = {name: list(problems) for name, problems in trainer.split.problems.items()}
    for name, part in zip(("train", "valid", "test"), (trainer.train, trainer.valid, trainer.test), strict=True):
        listed = found.setdefault(name, [])
        for example, row in zip(part.examples, part.rows, strict=True):
            if row.truncated:
                listed.append(Problem(example.line, f"cut at {trainer.config.max_length} tokens"))
            for label in sorted({item[2] for item in tasks.gold(example, trainer.config.task)} - set(trainer.labels)):
                listed.append(Problem(example.line, f"label {label!r} is not in the training: counted as not found"))
            if trainer.config.task == "spans":
                for start, end, _ in example.spans:
                    if row.span(start, end) is None:
                        where = f"span {start} to {end} ({example.text[start:end]!r})"
                        listed.append(
                            Problem(example.line, f"{where} is cut off or within a token: counted as not found")
                        )
    lines = [json.dumps({"part": name} | p._asdict(), ensure_ascii=False) for name, ps in found.items() for p in ps]
    write_atomically(directory / "problems.jsonl", "".join(line + "\n" for line in lines).encode())
    for name, problems in found.items():
        if problems:
            noun = "problem" if len(problems) == 1 else "problems"
            first = f"line {problems[0].line}: {problems[0].reason}"
            rich.print(f"[bold yellow]{name}: {len(problems):,} {noun}, listed in problems.jsonl; the first: {first}")


def summary(trainer: "Trainer", state: "TrainState", step: int) -> dict[str, Any]:
    """The numbers of a finished run; writes the predictions and the model that it reports on."""
    config = trainer.config
    chosen = state.best if int(state.best_epoch) else state.average
    result: dict[str, Any] = {"steps": step, "best_epoch": int(state.best_epoch)}
    if config.task != "masked":
        result["labels"] = len(trainer.labels)
    for name, part in (("valid", trainer.valid), ("test", trainer.test)):
        if not part.examples:
            continue
        found, predictions = trainer.scores(chosen, part)
        result |= {f"{name}_{key}": value for key, value in found.items()} | {f"{name}_examples": len(part.examples)}
        if config.task == "masked":
            continue
        if config.task != "spans":
            counts = Counter(label for example in trainer.train.examples for label in example.labels)
            most = counts.most_common(1)[0][0]
            labels = [label for example in part.examples for label in example.labels]
            result[f"{name}_most_frequent_label"] = labels.count(most) / len(labels)
        records = [
            tasks.as_record(example, row, config.task) for example, row in zip(part.examples, predictions, strict=True)
        ]
        content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_atomically(config.out / f"predictions_{name}.jsonl", content.encode())
    whole = devices.on_host(chosen)  # by all processes together
    if devices.is_first():
        weights.save(config.out / "model", trainer.sizes, whole)
        trainer.tokenizer.save(config.out / "model")
    if config.task != "masked":
        write_atomically(config.out / "model" / "labels.json", json.dumps(trainer.labels, ensure_ascii=False).encode())
    return result


def figure(metrics: list[dict[str, Any]], name: str, steps_per_epoch: int) -> Any:
    """Loss by step, and validation by epoch."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    drawn = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    losses = [(row["step"] / steps_per_epoch, row["loss"]) for row in metrics if row.get("loss") is not None]
    values = [(row["step"] / steps_per_epoch, row[f"valid_{name}"]) for row in metrics if f"valid_{name}" in row]
    for axes, points, label, style in (
        (left, losses, "training loss of a batch", "-"),
        (right, values, f"validation {name.replace('f1', 'F1')}", "o-"),
    ):
        if points:
            axes.plot(*np.array(points).T, style, markersize=4, linewidth=1.2)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return drawn
