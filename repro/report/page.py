"""The report page of a run: report.html, one file that needs no network; also of a run that has not finished.

repro report RUN            repro.report.page.write(run_folder)
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

import repro
from repro import fidelity
from repro import runfolder as folders
from repro.errors import BadInput
from repro.evals import METRICS
from repro.report import curves, doses, plots, table, transcripts
from repro.report.facts import facts, recipes, repeat, stage_rows, total

HERE = Path(__file__).resolve().parent
MARKS = {"shown": "✓", "opposite": "⇄", "absent": "○", "inconclusive": "?", "not-testable": "–", "incoherent": "!"}
ELSEWHERE = ("run folder: ", "repeat: ", "warning: ", "The organism is")  # captions that have a place of their own
SECTIONS = (
    ("run", "Run"), ("claims", "Claims"), ("table", "Comparison"), ("figures", "Pictures"), ("training", "Training"),
    ("inside", "Inside"), ("transcripts", "Transcripts"), ("again", "Run it again"), ("fidelity", "Fidelity"),
)  # fmt: skip


def write(run_folder: Path, rows: Iterable[dict[str, Any]] | None = None) -> Path:
    """Writes the run's report.html, at once, and returns its path. `rows` are those of its answers.jsonl, where they
    are at hand. BadInput where there is no run that it can read, CannotHere where it can't write."""
    run = folders.read(run_folder)
    answers = transcripts.collect(folders.lines(run_folder / "answers.jsonl", run.faults) if rows is None else rows)
    return folders.put(run_folder / "report.html", _page(run, answers))


def _page(run: folders.Folder, answers: dict[str, Any]) -> str:
    packed, cap = transcripts.pack(answers) if answers["rows"] else ("", 0)
    probed = _probes(run)
    script = (HERE / "page.js").read_text(encoding="utf-8")
    content: dict[str, Any] = {
        "title": _title(run), "version": repro.__version__, "folder": run.path.resolve().name,
        "description": (run.manifest.get("experiment") or {}).get("description") or "",
        "organism": ((run.manifest.get("experiment") or {}).get("pack")) == "micro",
        "style": Markup((HERE / "page.css").read_text(encoding="utf-8")), "script": Markup(script),
        "script_hash": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "unfinished": run.unfinished, "warnings": [*((run.results or {}).get("warnings") or []), *run.faults],
        "facts": facts(run), "recipes": recipes(run), "commands": repeat(run), "versions": _versions(run),
        "stages": stage_rows(run.stages), "total": total(run.stages), "losses": [], "fidelity": _fidelity(),
        "answers": len(answers["rows"]), "items": len(answers["items"]), "dosed": answers["dosed"], "cap": cap,
        "data": Markup(packed), "metrics": [], "claims": [], "behaviour": [], "probed": probed,
    }  # fmt: skip
    arms = table.arms_of(run.results) if run.results else list(run.manifest.get("arms") or [])
    content["losses"] = [Markup(plots.curve(found, arms)) for found in curves.losses(run.stages)]
    if run.results:
        content |= _figures(run.results, arms)
    shown = {"claims": content["claims"], "table": content["metrics"], "figures": content["metrics"],
             "training": content["stages"], "inside": probed}  # fmt: skip
    content["sections"] = [place for place in SECTIONS if shown.get(place[0], True)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["breakable"] = lambda name: Markup(str(escape(name)).replace("_", "_<wbr>"))
    return environment.get_template("page.html").render(content)


def _probes(run: folders.Folder) -> list[Markup]:
    """The pictures of `repro probe`, where it has run; a probes.json that can't be drawn is named and left out."""
    from repro.report import probe_plot

    try:
        content = folders.document(run.path / "probes.json", "the probe's figures")
        return [Markup(picture) for picture in probe_plot.pictures(content).values()] if content else []
    except BadInput as error:
        run.faults += error.lines
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        run.faults.append(f"probes.json: can't be drawn ({error!r}).")
    return []


def _title(run: folders.Folder) -> str:
    if run.results:
        return table.title(run.results)
    names = [(run.manifest.get("experiment") or {}).get("name"), (run.manifest.get("model") or {}).get("id")]
    return " on ".join(str(name) for name in names if name) or run.path.name


def _versions(run: folders.Folder) -> str:
    return "\n".join(f"{name}=={version}" for name, version in (run.manifest.get("versions") or {}).items())


# -- the comparison --------------------------------------------------------------------------------------------------


def _figures(results: Mapping[str, Any], arms: Sequence[str]) -> dict[str, Any]:
    """What the page shows of results.json."""
    metrics, versus = results["metrics"], table.rival(results)
    axes = list(dict.fromkeys(entry["axis"] for entry in metrics))
    strategies = [
        {
            "name": name,
            "metrics": _comparison({**results, "metrics": rows}, arms),
            "panels": [Markup(picture) for picture in plots.panels(rows, arms, name)],
        }
        for name, rows in (results.get("prompting") or {}).items()
    ]
    return {
        "arms": arms, "versus": versus, "metrics": _comparison(results, arms), "prompting": strategies,
        "captions": [line for line in table.captions(results) if not line.startswith(ELSEWHERE)],
        "claims": _claims(results), "tally": table.tally(results), "claims_hash": results.get("claims_hash"),
        "claims_changed": bool(results.get("claims_changed")), "matched": doses.matched_lines(results),
        "panels": [Markup(picture) for picture in plots.panels(metrics, arms)],
        "forests": [(axis, Markup(found)) for axis in axes if (found := plots.forest(axis, metrics, arms, versus))],
        "behaviour": [Markup(plots.curve(found, arms)) for found in curves.behaviour(results)],
    }  # fmt: skip


def _comparison(results: Mapping[str, Any], arms: Sequence[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    return [
        (axis, [_row(row, arms) for row in members])
        for axis, members in groupby(table.rows(results), key=lambda row: row.axis)
    ]


def _row(row: table.Row, arms: Sequence[str]) -> dict[str, Any]:
    known = METRICS.get(row.metric)
    return {
        "metric": row.metric, "group": row.group, "arrow": row.arrow, "what": known.what if known else "",
        "better": "higher" if row.higher_is_better else "lower", "n": table.counted(row, arms),
        "cells": [_cell(row.cells.get(arm), row.share) for arm in arms],
        "unscored": table.unscored(row, arms),
    }  # fmt: skip


def _cell(cell: table.Cell | None, share: bool) -> dict[str, Any] | None:
    if cell is None:
        return None
    bare = replace(cell, ci=None, differs=0, trained=False)
    return {
        "value": table.cell_text(bare, share), "ci": table.interval(cell.ci, share), "trained": cell.trained,
        "differs": table.DIFFERS[cell.differs],
    }  # fmt: skip


def _claims(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    bounds = {entry["metric"]: entry.get("bounds", [0, 1]) for entry in results["metrics"]}
    found = []
    for claim, texts in zip(results["claims"], table.claim_rows(results), strict=True):
        statement, arms, delta, interval, verdict, why = texts
        share = bounds.get(claim["metric"], [0, 1]) is not None
        smallest = claim.get("smallest_effect")
        amount = "?" if smallest is None else f"{100 * smallest:g} points" if share else f"{smallest:g}"
        found.append({
            "statement": statement, "arms": arms, "delta": delta, "interval": interval, "verdict": verdict, "why": why,
            "mark": MARKS.get(verdict, ""), "unit": "points" if share else "", "smallest": amount,
            "expected": claim.get("expected", "?"), "source": claim.get("source") or "",
        })  # fmt: skip
    return found


# -- fidelity --------------------------------------------------------------------------------------------------------


def _fidelity() -> dict[str, Any]:
    """What the paper says and what the kit does: an introduction, columns and rows."""
    return {
        "intro": _inline(fidelity.INTRO), "columns": fidelity.COLUMNS,
        "rows": [[_inline(cell) for cell in row] for row in fidelity.rows()],
    }  # fmt: skip


def _inline(text: str) -> Markup:
    """Markdown's code and strong; all else as it stands, escaped."""
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", html))
