"""What ``benchmarks.platform_speed`` measured on an accelerator, as a table for the README."""

from typing import Any

#: The lines that are shown, each with the line that it is compared with.
SHOWN = {
    **{
        f"nearest_code, {which}": f"nearest_code, {which}, without kernel"
        for which in (
            "512 codes",
            "512 codes, bfloat16",
            "8,192 codes",
            "8,192 codes, bfloat16",
            "1,024 codes of 8 features",
            "1,024 codes of 256 features",
        )
    },
    "nearest_code, 8,192 codes, without kernel": "product stored, 8,192 codes, HIGHEST",
    "nearest_code, 8,192 codes, bfloat16, without kernel": "product stored, 8,192 codes, bfloat16",
    "all distances, 8,192 codes, HIGHEST": "product stored, 8,192 codes, HIGHEST",
    "sums of codes, 8,192 codes, scatter": "sums of codes, 8,192 codes, products",
    "EMA step, 8,192 codes": "nearest_code, 8,192 codes",
    "ordered_lstm 256": "bare matrix products 256",
    "cell in lax.scan 256": "bare matrix products 256",
    "ordered_lstm 400-1150-1150-400": "bare matrix products 400-1150-1150-400",
    "cell in lax.scan 400-1150-1150-400": "bare matrix products 400-1150-1150-400",
    "rank of 128 x 10,000 at 1": "jnp.sort of 128 x 10,000",
}


def readme_section(results: dict[str, Any]) -> str:
    """One line of circumstances, the table, and the shares of wrong codes."""
    rows = {row["name"]: row for row in results["rows"]}
    lines = [
        f"Measured on an {results['device']} (`python -m benchmarks.platform_speed`, jax {results['jax']}, float32;"
        f" medians of {results['rounds']} rounds of {results['calls']} queued calls): the time, over that of another"
        " line, over what the chip's published speed leaves, and temporary memory.",
        "",
        "| line | ms | compared with | ratio | ÷ roofline | temporary, MiB |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for name, other in SHOWN.items():
        row = rows[name]
        cells = [f"{1e3 * row['seconds']:.3g}", other, f"{row['seconds'] / rows[other]['seconds']:.2f}"]
        cells += [f"{row['times roofline']:.3g}", f"{row['temporary bytes'] / 2**20:.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    shares = [
        f"{name.removesuffix(', mean 0')} {100 * share:.2g}%"
        for name, share in results["share of wrong codes"].items()
        if name.endswith("mean 0")
    ]
    return "\n".join([*lines, "", f"Vectors with another code than in float64: {'; '.join(shares)}."])
