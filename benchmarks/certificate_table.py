"""What certification found, as tables for the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

#: What is compared with an exact value: the estimate, and its gradients.
PARTS = ("value", "to the distribution", "to f")


def table_of(title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    """A table for the terminal."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*row)
    return table


def show(results: dict[str, Any], console: Console) -> None:
    """Prints what was found."""
    claim = {True: "unbiased", False: "biased"}
    rows = []
    for line in results["lines"]:
        z = (f"{line['z'][part]:.1f} ({claim[line['claims'][part]]})" for part in PARTS)
        rows.append((line["estimator"], line["problem"], f"{line['draws']:,}", *z))
    heads = ("estimator", "problem", "draws", *(f"|z| {part} (claim)" for part in PARTS))
    console.print(table_of("Claims", heads, rows))
    rows = []
    for line in results["controls"]:
        figures = (f"{line['z']:.1f}", f"{line['relative_bias']:.2f}", f"{line['variance_ratio']:.2f}")
        rows.append((line["control"], line["mistake"], *figures, "found" if line["found"] else "NOT FOUND"))
    heads = ("control", "mistake", "|z|", "relative bias", "variance ratio", "")
    console.print(table_of("Known mistakes", heads, rows))
    rows = []
    for line in results["variances"]:
        figures = (f"{line[kind]:.4g}" for kind in ("t", "theta", "drawn", "closed_form", "published"))
        rows.append((line["estimator"], *figures, f"{line['z']:.1f}", "" if line["agrees"] else "DIFFERS"))
    heads = ("estimator", "t", "theta", "drawn", "closed form", "published", "|z|", "")
    console.print(table_of("Variances of one bit", heads, rows))
    rows = []
    for line in results["variances_of_200_bits"]:
        options = ", ".join(f"{name} {value}" for name, value in line["options"].items())
        figures = (f"{line['logit']:g}", f"{line['drawn']:.3g}", f"{line['measured']:.3g}")
        rows.append((line["estimator"], options, *figures, "" if line["agrees"] else "DIFFERS"))
    heads = ("estimator", "options", "logit", "drawn", "measured before", "")
    console.print(table_of("Variances of a coordinate of 200 bits", heads, rows))
    for words in results["contradictions"]:
        console.print(f"[bold red]CONTRADICTION {words}[/]", highlight=False)
