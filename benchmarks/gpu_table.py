"""The JSON of ``benchmarks.gpu`` as a Markdown table of at most 100 columns."""

from __future__ import annotations

from typing import Any

COLUMNS = {
    "seconds": ("s", "{:.3f}"),
    "tflops": ("TFLOPs", "{:.4g}"),
    "tflops_per_second": ("TFLOP/s", "{:.3g}"),
    "tflops_ratio": ("fewer", "{:.2f}x"),
    "speedup": ("faster", "{:.2f}x"),
    "peak_gib": ("GiB", "{:.1f}"),
}
BAR = 2.85 / 3
"""What is asked for: three times fewer FLOPs give at least 2.85 times the speed."""
PAPER = (33.85 / 14.46) / (3719.50 / 1234.39)
"""What Bottleneck Sampling reports for its threefold schedule (arXiv 2503.18940, Table 1)."""
_NAME_WIDTH = 46


def table(result: dict[str, Any]) -> str:
    """Writes the table, and under it what is not a column."""
    head = [_line("row", [title for title, _ in COLUMNS.values()]), _line("---", ["---:"] * len(COLUMNS))]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    rows = [_line(row["name"], [_cell(row, key) for key in COLUMNS]) for row in result["rows"] if "seconds" in row]
    asked = (
        f"Asked for: {BAR:.2f} of the saving in FLOPs arrives as speed; Bottleneck Sampling reports {PAPER:.2f}."
    )
    remarks = _remarks(result["rows"])
    return "\n".join([f"{result['device']}; {versions}.", "", *head, *rows, "", asked, "", *remarks])


def _line(name: str, cells: list[str]) -> str:
    return f"| {name[:_NAME_WIDTH]} | {' | '.join(cells)} |"


def _cell(row: dict[str, Any], key: str) -> str:
    return "" if row.get(key) is None else COLUMNS[key][1].format(row[key])


def _remarks(rows: list[dict[str, Any]]) -> list[str]:
    remarks = []
    for row in rows:
        if reason := row.get("left_out") or row.get("failed"):
            remarks.append(f"- {row['name']}: {'left out, ' if 'left_out' in row else 'failed, '}{reason}.")
        if "ours_over_stock" in row:
            remarks.append(
                f"- {row['name']}: the stock pipeline takes {row['stock_seconds']:.3f} s, our loop "
                f"{row['ours_over_stock']:.3f} of it;"
            )
            remarks.append(f"  the latents differ by {row['latents_apart']:.4f} of their standard deviation.")
        if "over_plain" in row:
            remarks.append(
                f"- {row['name']}: {row['over_plain']:.2f}x as fast as plain; the first call took "
                f"{row['compiling_seconds']:.0f} s."
            )
        if "share_of" in row:
            shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in row["share_of"].items())
            remarks.append(f"- {row['name']}: {shares}.")
        if row.get("tflops_ratio", 1) > 1 and row.get("speedup"):
            kept = row["speedup"] / row["tflops_ratio"]
            remarks.append(f"- {row['name']}: {kept:.3f} of the saving in FLOPs arrives as speed.")
        if row.get("added_up"):
            remarks.append(f"- {row['name']}: added up from single steps.")
    return remarks
