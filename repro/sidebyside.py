"""Finished runs: reads their results, and puts the figures of several side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from repro.errors import BadInput
from repro.report import table as report
from repro.yamltree import did_you_mean

SCHEMA = 1


def find_run(name: str, runs_dir: Path) -> Path:
    """A run folder by its path, its name, or an unambiguous beginning of its name."""
    for folder in (Path(name), runs_dir / name):
        if (folder / "manifest.json").is_file():
            return folder
    present = sorted(path.parent for path in runs_dir.glob("*/manifest.json")) if runs_dir.is_dir() else []
    begins = [folder for folder in present if folder.name.startswith(name)]
    if len(begins) == 1:
        return begins[0]
    if begins:
        raise BadInput(f'several runs begin with "{name}": {", ".join(folder.name for folder in begins)}')
    names = [folder.name for folder in present]
    raise BadInput(f'no run "{name}"{did_you_mean(name, names)}; in {runs_dir} there are: {", ".join(names) or "none"}')


def read_results(name: str, runs_dir: Path) -> dict[str, Any]:
    """The content of a run's results.json. BadInput where it is not finished or not readable."""
    path = find_run(name, runs_dir) / "results.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path.parent} has no results yet: the command that began it resumes it") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: can't be read: {error}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise BadInput(f"{path}: schema {content.get('schema') if isinstance(content, dict) else None}, not {SCHEMA}")
    return content


def table(runs: list[dict[str, Any]]) -> Group:
    """One row a metric and arm, one column a run (value and 95% interval), and each claim's verdict in each run."""
    heads = [f"{place}: {report.title(content)}" for place, content in enumerate(runs, 1)]
    columns = [_figures(content) for content in runs]
    metrics = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    metrics.add_column("metric")
    metrics.add_column("arm")
    for head in heads:
        metrics.add_column(head, overflow="fold")
    before = ""
    for metric, arm in dict.fromkeys(place for column in columns for place in column):
        cells = [column.get((metric, arm), "") for column in columns]
        metrics.add_row(metric if metric != before else "", arm, *map(Text, cells))
        before = metric
    blocks: list[Any] = [metrics]
    claims = [{claim["id"]: claim["verdict"] for claim in content["claims"]} for content in runs]
    if any(claims):
        verdicts = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        verdicts.add_column("claim")
        for head in heads:
            verdicts.add_column(head, overflow="fold")
        for name in dict.fromkeys(name for found in claims for name in found):
            verdicts.add_row(name, *(found.get(name, "") for found in claims))
        blocks.append(verdicts)
    legend = "Percent [95% interval]. Runs are shown, not tested against each other: their seeds and items may differ."
    return Group(*blocks, Text(legend, style="dim"))


def _figures(content: dict[str, Any]) -> dict[tuple[str, str], str]:
    found = {}
    for row in report.rows(content):
        if row.group is None:
            for arm, cell in row.cells.items():
                found[f"{row.metric} {row.arrow}", arm] = report.cell_text(cell, row.share)
    return found
