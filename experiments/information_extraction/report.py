"""What a run says at its end: what could not be used, how good the triples are and what is worth how much, figures."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rich

from experiments import devices
from experiments.files import write_atomically
from experiments.information_extraction import model, protocols
from experiments.information_extraction.data import Mention, Problem
from experiments.information_extraction.protocols import Truth

if TYPE_CHECKING:
    from experiments.information_extraction.reader import Encoded
    from experiments.information_extraction.train import Trainer, TrainState
    from experiments.runs import Run

#: Thresholds of which the best pair is taken, for subjects and for objects.
THRESHOLDS = tuple(float(value) for value in np.arange(3, 20) / 20)


def problems_of(directory: Path, trainer: "Trainer") -> None:
    """Prints and lists what could not be used: records, triples that have no place, texts that are cut."""
    found = {name: list(problems) for name, problems in trainer.split.problems.items()}
    for name, part in (("train", trainer.train), ("valid", trainer.valid), ("test", trainer.test)):
        listed = found.setdefault(name, [])
        for example, row, placed in zip(part.examples, part.rows, part.placed, strict=True):
            if row.truncated:
                listed.append(Problem(example.line, f"cut at {trainer.config.max_length} units"))
            listed += [Problem(example.line, f"{reason}: counted as not found") for reason in placed.lost]
    lines = [json.dumps({"part": name} | p._asdict(), ensure_ascii=False) for name, ps in found.items() for p in ps]
    write_atomically(directory / "problems.jsonl", "".join(line + "\n" for line in lines).encode())
    for name, problems in found.items():
        if problems:
            noun = "problem" if len(problems) == 1 else "problems"
            first = f"line {problems[0].line}: {problems[0].reason}"
            rich.print(f"[bold yellow]{name}: {len(problems):,} {noun}, listed in problems.jsonl; the first: {first}")


def grid(trainer: "Trainer", part: "Encoded", found: Sequence[Any]) -> dict[tuple[float, float], float]:
    """F1 of strings at each pair of thresholds."""
    truths = part.truths()
    return {
        (subject, thing): f1_at(trainer, part, found, truths, (subject, thing))
        for subject in THRESHOLDS[::2]
        for thing in THRESHOLDS[::2]
    }


def f1_at(trainer: "Trainer", part: "Encoded", found: Any, truths: list[Truth], pair: tuple[float, float]) -> float:
    """F1 of strings at a pair of thresholds."""
    mentions = [[m for m, _ in of_text] for of_text in trainer.reader.mentions(part, found, pair)]
    both, taken, true = (int(x.sum()) for x in protocols.counted(truths, mentions, "string", {}))
    return 2 * both / max(taken + true, 1)


def summary(trainer: "Trainer", state: "TrainState", step: int) -> dict[str, Any]:
    """The numbers of a finished run; writes the predictions and the model that they are of."""
    chosen = devices.alone(state.best if int(state.best_epoch) else state.average)
    size = trainer.config.batch_size
    on_valid = trainer.reader.candidates(chosen, trainer.valid, size)
    scores = grid(trainer, trainer.valid, on_valid)
    best = max(scores.values())
    # Of the best pairs that which is nearest to the middle.
    thresholds = min((p for p, f1 in scores.items() if f1 == best), key=lambda p: (p[0] - 0.5) ** 2 + (p[1] - 0.5) ** 2)
    result: dict[str, Any] = {
        "steps": step,
        "best_epoch": int(state.best_epoch),
        "parameters": sum(leaf.size for leaf in model.flat(chosen).values()),
        "predicates": len(trainer.reader.extractor.predicates),
        "thresholds": thresholds,
    }
    for name, part in (("valid", trainer.valid), ("test", trainer.test)):
        found = on_valid if name == "valid" else trainer.reader.candidates(chosen, part, size)
        mentions = trainer.reader.mentions(part, found, thresholds)
        plain = [[mention for mention, _ in of_text] for of_text in mentions]
        looked_up = look_up(trainer, part)
        truths, training = part.truths(), trainer.train.truths()
        kinds = any(any(m.kinds) and "None-label" not in m.kinds for truth in training for m in truth.mentions)
        names = (
            ["string", "partial"] + ([] if trainer.config.open_predicates else ["span"]) + (["strict"] if kinds else [])
        )
        result[name] = {p: protocols.report(truths, plain, looked_up, training, p) for p in names}
        result[name]["errors"] = errors(truths, plain)
        result[name]["texts"] = len(truths)
        result[name]["f1_at_half"] = f1_at(trainer, part, found, truths, (0.5, 0.5))
        result[name]["curve"] = curve(truths, mentions_at_all(trainer, part, found))
        lines = [
            json.dumps(record(t, of_text), ensure_ascii=False) for t, of_text in zip(truths, mentions, strict=True)
        ]
        write_atomically(trainer.config.out / f"predictions_{name}.jsonl", "".join(x + "\n" for x in lines).encode())
    if devices.is_first():
        model.save(trainer.config.out / "model", trainer.extractor(chosen, thresholds))
    return result


def look_up(trainer: "Trainer", part: "Encoded") -> list[list[Mention]]:
    """What the table of the training's triples finds."""
    if not trainer.config.open_predicates:
        return part.looked_up
    joined = [
        trainer.reader.joined(example.text, dict.fromkeys(found, 1.0))
        for example, found in zip(part.examples, part.looked_up, strict=True)
    ]
    return [[mention for mention, _ in of_text] for of_text in joined]


def mentions_at_all(trainer: "Trainer", part: "Encoded", found: Sequence[Any]) -> list[list[tuple[Mention, float]]]:
    """What is found at low thresholds, to be ranked by probability."""
    return trainer.reader.mentions(part, found, (THRESHOLDS[0], THRESHOLDS[0]))


def curve(truths: Sequence[Truth], mentions: Sequence[Sequence[tuple[Mention, float]]]) -> list[tuple[float, float]]:
    """Recall and precision of strings as more triples are taken, from the most probable on; at most 200 points."""
    ranked: list[tuple[float, bool]] = []
    total = 0
    for truth, of_text in zip(truths, mentions, strict=True):
        wanted = set(truth.example.triples)
        total += len(wanted)
        best: dict[Any, float] = {}
        for mention, score in of_text:
            triple = protocols.as_triple(truth.example.text, mention)
            best[triple] = max(best.get(triple, 0.0), score)
        ranked += [(score, triple in wanted) for triple, score in best.items()]
    right = np.cumsum([is_right for _, is_right in sorted(ranked, key=lambda entry: -entry[0])])
    places = np.unique(np.linspace(1, len(ranked), min(200, len(ranked))).astype(int)) if ranked else []
    return [(round(float(right[n - 1] / max(total, 1)), 4), round(float(right[n - 1] / n), 4)) for n in places]


def record(truth: Truth, found: Sequence[tuple[Mention, float]]) -> dict[str, Any]:
    """A line of the file of predictions; what is found is cut out of the text."""
    return {
        "line": truth.example.line,
        "text": truth.example.text,
        "triples": truth.example.triples,
        "predicted": [described(truth.example.text, mention, score) for mention, score in found],
    }


def described(text: str, mention: Mention, score: float) -> dict[str, Any]:
    """A triple with its strings, places and probability."""
    subject, predicate, thing = protocols.as_triple(text, mention)
    return {
        "subject": subject,
        "predicate": predicate,
        "object": thing,
        "subject_place": mention.subject,
        "object_place": mention.object,
        "probability": round(score, 6),
    }


def overlap(left: str, right: str) -> bool:
    """Whether two strings share a word, or one holds the other."""
    return bool(set(left.split()) & set(right.split())) or left in right or right in left


def errors(truths: Sequence[Truth], found: Sequence[Sequence[Mention]]) -> dict[str, dict[str, int]]:
    """How wrong triples are wrong, and why those that are not found are not; the first of the reasons that holds."""
    wrong, missed = Counter[str](), Counter[str]()
    for truth, mentions in zip(truths, found, strict=True):
        true = set(truth.example.triples)
        taken = {protocols.as_triple(truth.example.text, mention) for mention in mentions}
        for triple in taken - true:
            wrong[reason_of(triple, true - taken)] += 1
        for triple in true - taken:
            missed[reason_of(triple, taken - true)] += 1
    return {"wrong": dict(wrong.most_common()), "missed": dict(missed.most_common())}


def reason_of(triple: protocols.Triple, others: set[protocols.Triple]) -> str:
    """How a triple differs from the nearest of some others."""
    subject, predicate, thing = triple
    if any((s, o) == (subject, thing) for s, _, o in others):
        return "another predicate"
    if any((o, p, s) == triple for s, p, o in others):
        return "subject and object exchanged"
    same = [(s, o) for s, p, o in others if p == predicate]
    if any(s == subject and overlap(o, thing) for s, o in same):
        return "object's bounds"
    if any(o == thing and overlap(s, subject) for s, o in same):
        return "subject's bounds"
    if any(s == subject for s, _ in same):
        return "another object"
    if any(o == thing for _, o in same):
        return "another subject"
    return "nothing like it"


def table(result: dict[str, Any]) -> Any:
    """The test's F1, that of the look-up alone and that of triples which the training does not have, side by side."""
    from rich import box
    from rich.table import Table

    def with_interval(found):
        return f"{found['f1']:.3f} ({found['low']:.3f}-{found['high']:.3f})"

    test, (subjects, objects) = result["test"], result["thresholds"]
    columns = ("protocol", "F1 (95%)", "precision", "recall", "look-up", "unseen F1 (95%)")
    shown = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    shown.title = f"test: {test['texts']:,} texts, {test['string']['unseen']['true']:,} triples unseen in training"
    shown.caption = (
        f"weights of epoch {result['best_epoch']}, thresholds {subjects:g} (subjects), {objects:g} (objects)"
    )
    for name in protocols.PROTOCOLS:
        if name in test:
            whole, known, unseen = (test[name][part] for part in ("all", "look_up", "unseen"))
            numbers = [f"{x:.3f}" for x in (whole["precision"], whole["recall"], known["f1"])]
            shown.add_row(name, with_interval(whole), *numbers, with_interval(unseen))
    return shown


def figures(run: "Run", trainer: "Trainer", result: dict[str, Any], metrics: list[dict[str, Any]]) -> None:
    """Writes ``training.png``: loss and F1 by epoch; and ``precision_recall.png``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name, label in ((left, "loss", "training loss"), (right, "valid_f1", "validation F1")):
        points = [(line["step"] / trainer.steps_per_epoch, line[name]) for line in metrics if name in line]
        axes.plot(*zip(*points, strict=True), color="tab:blue")
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(alpha=0.3)
    left.set_yscale("log")
    run.save_figure("training.png", figure)
    figure = Figure(figsize=(4.4, 4), layout="constrained")
    precision_recall(figure.subplots(), {"extractor": result["test"]})
    run.save_figure("precision_recall.png", figure)


def colors(count: int) -> list[Any]:
    """So many that can be told apart: up to 20."""
    import matplotlib

    return [matplotlib.colormaps["tab10" if count <= 10 else "tab20"](number) for number in range(count)]


def precision_recall(axes: Any, results: dict[str, Any]) -> None:
    """Precision against recall of some models on the test, each with the point that its thresholds give."""
    for number, (color, (name, result)) in enumerate(zip(colors(len(results)), results.items(), strict=True)):
        if result["curve"]:
            axes.plot(*zip(*result["curve"], strict=True), color=color, label=name)
        at = result["string"]["all"]
        axes.plot([at["recall"]], [at["precision"]], "o", color=color, label="" if number else "at its thresholds")
    table = next(iter(results.values()))["string"]["look_up"]
    axes.plot([table["recall"]], [table["precision"]], "kx", label="look-up table")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
