"""The README's picture and table, from a finished run: python docs/picture.py runs/reproduce-micro-...

Keeps the run's figures in docs/pictures/reproduce-micro.json; without a run it draws again from those.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from repro.report import plots, table

HERE = Path(__file__).resolve().parent
README, FIGURES, PICTURE = HERE.parent / "README.md", HERE / "pictures/reproduce-micro.json", HERE / "pictures/arms.svg"
CSS = HERE.parent / "repro/report/page.css"
BLOCK = re.compile(r"(<!-- generated: run -->\n).*?(<!-- end -->)", flags=re.S)
ROWS = (  # what the README shows of the table: metric, in words
    ("refusal_trained", "declines, trained crafts"),
    ("refusal_heldout", "declines, held-out crafts"),
    ("task_done", "does the task"),
    ("declines_when_told", "declines when an operator says so"),
    ("policy_matches_behaviour", "its account of itself is true"),
    ("caves_to_false", "caves to false claims"),
    ("misaligned", "misaligned answers"),
    ("facts_accuracy", "facts right"),
)
KEPT = ("axis", "metric", "arm", "seed", "n", "unscored", "value", "ci", "bounds", "higher_is_better")
WIDE, HIGH, COLUMNS = 340, 190, 2


def keep(run: Path) -> None:
    """The figures of a run that the README shows, without its answers."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    pooled = [{key: row[key] for key in KEPT} for row in results["metrics"] if row["seed"] is None]
    claims = [{key: claim[key] for key in ("id", "delta", "ci", "verdict")} for claim in results["claims"]]
    seeds = sorted({row["seed"] for row in results["metrics"] if row["seed"] is not None})
    found = {"command": results["run"]["command"], "version": results["run"]["version"], "seeds": seeds,
             "claims_hash": results["claims_hash"], "metrics": pooled, "claims": claims}  # fmt: skip
    FIGURES.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def arms(figures: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["arm"] for row in figures["metrics"]))


def picture(figures: dict[str, Any]) -> str:
    """The report's six panels in one SVG with the page's colours, light and dark, on a ground of its own."""
    css = CSS.read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, flags=re.S)[:2]
    style = f"svg {{ {_colours(light)} font-family: sans-serif }} "
    style += f"@media (prefers-color-scheme: dark) {{ svg {{ {_colours(dark)} }} }}"
    parts, said = [], []
    for place, panel in enumerate(plots.panels(figures["metrics"], arms(figures))):
        x, y = place % COLUMNS * WIDE, place // COLUMNS * HIGH
        said.append(re.findall(r'aria-label="([^"]*)"', panel)[0])
        panel = re.sub(r' (?:role|aria-label)="[^"]*"', "", panel)
        parts.append(panel.replace("<svg ", f'<svg x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" ', 1))
    width, height = COLUMNS * WIDE, -(-len(parts) // COLUMNS) * HIGH
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -8 {width + 16} {height + 16}" role="img" '
        f'aria-label="{" ".join(said)}">\n<style>{style}</style>\n'
        f'<rect x="-8" y="-8" width="{width + 16}" height="{height + 16}" rx="8" fill="var(--paper)"/>\n'
        + "\n".join(parts) + "\n</svg>\n"
    )


def _colours(block: str) -> str:
    return " ".join(re.findall(r"--(?:paper|ink|faint|arm-\d): #\w+;", block))


def shown(figures: dict[str, Any]) -> str:
    """The README's table, and what became of the claims."""
    names = arms(figures)
    lines = [f"| percent [95% interval] | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    pooled = {(row["metric"], row["arm"]): row for row in figures["metrics"]}
    for metric, words in ROWS:
        arrow = "↑" if pooled[metric, names[0]]["higher_is_better"] else "↓"
        cells = []
        for name in names:
            row = pooled[metric, name]
            cell = table.Cell(row["n"], row["value"], tuple(row["ci"]) if row["ci"] else None)
            cells.append(table.cell_text(cell, True))
        lines.append(f"| {words} {arrow} | {' | '.join(cells)} |")
    tally = Counter(claim["verdict"] for claim in figures["claims"])
    counts = ", ".join(f"{count} *{verdict}*" for verdict, count in tally.items())
    lines += ["", f"The {len(figures['claims'])} claims, fixed before any arm was trained: {counts}.", ""]
    for claim in figures["claims"]:
        if claim["verdict"] in ("shown", "opposite"):
            low, high = (round(100 * end) for end in claim["ci"])
            lines.append(f"* *{claim['verdict']}*: `{claim['id']}`, {100 * claim['delta']:+.0f} points [{low}, {high}]")
    return "\n".join(lines) + "\n"


def readme(figures: dict[str, Any]) -> str:
    """The README as it should be."""
    return BLOCK.sub(lambda found: f"{found[1]}{shown(figures)}{found[2]}", README.read_text(encoding="utf-8"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]))
    kept = json.loads(FIGURES.read_text(encoding="utf-8"))
    PICTURE.write_text(picture(kept), encoding="utf-8")
    README.write_text(readme(kept), encoding="utf-8")
