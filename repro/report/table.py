"""The comparison table of a run: for the terminal (100 columns), as Markdown and as CSV, all from the same rows."""

from __future__ import annotations

import csv
import io
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from repro.report import doses

WIDTH = 100
ARMS_ABREAST = (
    4  # as many as fit with their intervals; more are stacked, each part beside the arm they are compared with
)
NAME_WIDTH, CELL_WIDTH = 28, 15
ALPHA = 0.05
DIFFERS = {1: "better", -1: "worse", 0: ""}
VERDICT_STYLES = {"shown": "green", "opposite": "red", "incoherent": "red", "absent": "yellow"}

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One arm's figure on one row; shares in [-1, 1], or plain numbers where the row is no `share`."""

    n: int
    value: float | None
    ci: tuple[float, float] | None
    unscored: int | None = None  # None on the rows of a group, which do not count it
    differs: int = 0  # from the arm compared with: 1 for the better, -1 for the worse
    trained: bool = False


@dataclass(frozen=True)
class Row:
    """One metric, or one group of it; `cells` by arm."""

    axis: str
    metric: str
    group: str | None
    higher_is_better: bool
    share: bool
    cells: dict[str, Cell]

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"


def rows(results: Results) -> list[Row]:
    """The pooled rows of results.json by axis and metric; a metric with several groups is followed by one row each."""
    tags, other = results.get("tags") or {}, rival(results)
    pooled: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for entry in results["metrics"]:
        if entry["seed"] is None:
            pooled.setdefault((entry["axis"], entry["metric"]), {})[entry["arm"]] = entry
    axes = list(dict.fromkeys(axis for axis, _ in pooled))
    found = []
    for (axis, metric), entries in sorted(pooled.items(), key=lambda item: axes.index(item[0][0])):
        first = next(iter(entries.values()))
        share = first.get("bounds", [0, 1]) is not None
        better = bool(first["higher_is_better"])
        tagged = tags.get(metric, {})
        cells = {arm: _cell(entry, other, tagged.get(arm) == "trained") for arm, entry in entries.items()}
        found.append(Row(axis, metric, None, better, share, cells))
        groups = list(dict.fromkeys(part["group"] for entry in entries.values() for part in entry.get("groups", [])))
        for group in groups if len(groups) > 1 else []:
            parts = {arm: part for arm, entry in entries.items() for part in entry["groups"] if part["group"] == group}
            cells = {arm: Cell(part["n"], part["value"], _pair(part["ci"])) for arm, part in parts.items()}
            found.append(Row(axis, metric, group, better, share, cells))
    return found


def _pair(ci: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ci is None else (ci[0], ci[1])


def rival(results: Results) -> str:
    """The arm that all others are compared with."""
    return str(results.get("versus") or "base")


def _cell(entry: Mapping[str, Any], other: str, trained: bool) -> Cell:
    versus = entry["versus"].get(other)
    differs = side(versus, entry["higher_is_better"]) if versus else 0
    unscored = entry.get("unscored_answers", entry["unscored"])
    return Cell(entry["n"], entry["value"], _pair(entry["ci"]), unscored, differs, trained)


def side(versus: Mapping[str, Any], higher_is_better: bool) -> int:
    """1 where a difference is clearly for the better, -1 where it is clearly for the worse, else 0."""
    ci, p = versus["ci"], versus["p_holm"]
    # the test flips topics and does not see how seeds differ; the interval does: a mark needs both
    if not ci or p is None or p >= ALPHA or ci[0] <= 0 <= ci[1]:
        return 0
    return 1 if (versus["delta"] > 0) == higher_is_better else -1


# -- words -----------------------------------------------------------------------------------------------------------


def _number(value: float, share: bool) -> str:
    """Percent without decimals, 0 and 100 only where nothing was rounded away; two decimals for what is no share."""
    if not share:
        return _end(value, share)
    percent = 100 * value
    if 0 < abs(percent) <= 0.5:
        return "<1" if percent > 0 else ">-1"
    if 99.5 <= abs(percent) < 100 - 1e-9:
        return ">99" if percent > 0 else "<-99"
    return str(round(percent))


def _end(value: float, share: bool) -> str:
    return str(round(100 * value)) if share else f"{round(value, 2) + 0.0:.2f}"


def interval(ci: Sequence[float] | None, share: bool) -> str:
    return "" if ci is None else f"[{_end(ci[0], share)}, {_end(ci[1], share)}]"


def cell_text(cell: Cell | None, share: bool) -> str:
    """`97 [93, 99]*t`: value, 95% interval, differs from base, trained; an en dash where nothing was scored."""
    if cell is None:
        return ""
    if cell.value is None:
        return "–"
    marks = "*" * (cell.differs != 0) + "t" * cell.trained
    return f"{_number(cell.value, share)} {interval(cell.ci, share)}".rstrip() + marks


def _span(counts: Sequence[int]) -> str:
    return "-".join(map(str, sorted({min(counts, default=0), max(counts, default=0)})))


def counted(row: Row, arms: Sequence[str]) -> str:
    """How many items the arms of a row have: fewest to most."""
    return _span([row.cells[arm].n for arm in arms if arm in row.cells])


def unscored(row: Row, arms: Sequence[str]) -> str:
    """How many answers of each arm nobody could score; empty where all were."""
    lost = [row.cells[arm].unscored if arm in row.cells else None for arm in arms]
    return " / ".join("–" if count is None else str(count) for count in lost) if any(lost) else ""


def _named(value: Any, *keys: str) -> str:
    """A thing given as its name, or as a mapping with the name under one of `keys`."""
    if isinstance(value, Mapping):
        return next((str(value[key]) for key in keys if value.get(key)), "")
    return "" if value is None else str(value)


def arms_of(results: Results) -> list[str]:
    return list(dict.fromkeys(entry["arm"] for entry in results["metrics"]))


def parts_of(arms: Sequence[str], other: str = "base") -> list[list[str]]:
    """The arms of each stacked table: all of them where they fit, else evenly many with `other` repeated in each."""
    if len(arms) <= ARMS_ABREAST:
        return [list(arms)]
    repeated = [arm for arm in arms if arm == other]
    rest = [arm for arm in arms if arm != other]
    room = ARMS_ABREAST - len(repeated)
    count = -(-len(rest) // room)
    size = -(-len(rest) // count)
    return [repeated + rest[start : start + size] for start in range(0, len(rest), size)]


def title(results: Results) -> str:
    name = _named(results["run"], "name", "experiment")
    model = _named(results["model"], "id", "name")
    return " on ".join(part for part in (name, model) if part) or "comparison"


def is_organism(results: Results) -> bool:
    """Whether the run used the fictional pack; results may say so under pack, model.pack or run.pack."""
    places = [results, results["model"], results["run"]]
    return any(isinstance(place, Mapping) and place.get("pack") == "micro" for place in places)


def captions(results: Results) -> list[str]:
    """What the table needs to be understood and repeated, one sentence a line."""
    entries = [entry for entry in results["metrics"] if entry["seed"] is None]
    seeds = sorted({entry["seed"] for entry in results["metrics"] if entry["seed"] is not None})
    tags = [tag for by_arm in (results.get("tags") or {}).values() for tag in by_arm.values()]
    legend = "percent [95% interval]; ↑ higher is better, ↓ lower"
    if any(rival(results) in entry["versus"] for entry in entries):
        legend += (
            f"; * differs from {rival(results)} (paired interval without 0, and p < .05 after Holm over the table)"
        )
    if "trained" in tags:
        legend += "; t the arm's training showed this very thing, all else has to generalise"
    lost = sum(entry.get("unscored_answers", entry["unscored"]) for entry in entries)
    lines = [legend + "."]
    judge = _named(results["judge"], "name")
    kappa = results["judge"].get("kappa") if isinstance(results["judge"], Mapping) else None
    if kappa is not None:
        data = f"{results['judge']['data']}, " if results["judge"].get("data") else ""
        judge += f" (kappa {kappa:.2f}, {data}n={results['judge'].get('n')} human labels)"
    subject = "organism" if is_organism(results) else "model"
    model = _named(results["model"], "id", "name") or "?"
    lines.append(
        f"{subject}: {model} · items a metric: {_span([entry['n'] for entry in entries])} · "
        f"seeds: {', '.join(map(str, seeds))} · unscored answers: {lost} · judge: {judge or '?'}."
    )
    for arm, share in (results.get("gate") or {}).items():
        if share is not None and share < 0.90:
            lines.append(f"{arm} fails the gate: {100 * share:.0f}% of its answers are well formed and on topic.")
    if is_organism(results):
        lines.append("The organism is a constructed model: it shows mechanics and is no evidence about real models.")
    lines += [f"warning: {warning}" for warning in results.get("warnings") or []]
    folder = _named(results["run"], "folder") if isinstance(results["run"], Mapping) else ""
    if folder:
        lines.append(f"run folder: {folder}")
    command = _named(results["run"], "command") if isinstance(results["run"], Mapping) else ""
    if not command and (name := _named(results["run"], "experiment", "name")):
        command = f"repro run {name}"
    if command:
        lines.append(f"repeat: {command}")
    return lines


# -- claims ----------------------------------------------------------------------------------------------------------

CLAIM_HEADS = ("claim", "arms", "delta", "interval", "verdict", "why")


def claim_rows(results: Results) -> list[tuple[str, ...]]:
    """The claims as text, under CLAIM_HEADS; `interval` is the plain 95% one, `delta` in points (or plain numbers)."""
    shares = {entry["metric"]: entry.get("bounds", [0, 1]) is not None for entry in results["metrics"]}
    found: list[tuple[str, ...]] = []
    for claim in results["claims"]:
        share = shares.get(claim["metric"], True)
        a, b = claim["arms"]
        group = claim.get("group") or []
        where = ", ".join([claim["metric"], *([group] if isinstance(group, str) else group)])
        delta = ""
        if claim["delta"] is not None:
            sign = "+" if claim["delta"] > 0 else ""
            delta = sign + _end(claim["delta"], share)
        ci = interval(claim["ci"], share)
        found.append((claim["statement"], f"{a} - {b}: {where}", delta, ci, claim["verdict"], claim["why"]))
    return found


def tally(results: Results) -> str:
    """`3 shown, 1 inconclusive`, in the order of the first of each."""
    return ", ".join(f"{n} {verdict}" for verdict, n in Counter(c["verdict"] for c in results["claims"]).items())


# -- for the terminal ------------------------------------------------------------------------------------------------


def rich_table(results: Results) -> Group:
    """The whole comparison as one rich renderable of at most WIDTH columns: metrics, claims, caption."""
    found = rows(results)
    parts = parts_of(arms_of(results), rival(results))
    blocks: list[Any] = [Text(title(results), style="bold")]
    for arms in parts:
        blocks += [_metric_table(found, arms), Text()]
    if results["claims"]:
        blocks += [Text(f"Pre-registered claims: {tally(results)}", style="bold"), _claim_table(results), Text()]
    if curve := doses.rows(results, _number):
        matched = [Text(line) for line in _wrapped(doses.matched_lines(results))]
        blocks += [Text(doses.TITLE, style="bold"), doses.rich_table(doses.heads(results), curve), *matched, Text()]
    blocks += [Text(line, style="dim") for line in _wrapped(captions(results))]
    return Group(*blocks)


def _wrapped(lines: Sequence[str]) -> list[str]:
    # a command or a folder stays on one line, so that it can be copied
    keep = ("repeat: ", "run folder: ")
    return [part for line in lines for part in ([line] if line.startswith(keep) else textwrap.wrap(line, WIDTH))]


def _metric_table(found: Sequence[Row], arms: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("", width=NAME_WIDTH, overflow="fold")
    table.add_column("n", width=4, justify="right")
    for arm in arms:
        lines = [line for part in arm.replace("/", "/\n").split("\n") for line in textwrap.wrap(part, CELL_WIDTH)]
        table.add_column("\n".join(lines), width=CELL_WIDTH, overflow="fold")
    for axis, members in groupby(found, key=lambda row: row.axis):
        table.add_row(Text(axis, style="bold"))
        for row in members:
            name = f"{row.metric} {row.arrow}" if row.group is None else f"  {row.group}"
            fewest = min((row.cells[arm].n for arm in arms if arm in row.cells), default=0)
            cells = [_styled(row.cells.get(arm), row.share) for arm in arms]
            table.add_row(Text(name, style="" if row.group is None else "dim"), str(fewest), *cells)
    return table


def _styled(cell: Cell | None, share: bool) -> Text:
    text = cell_text(cell, share)
    if len(text) > CELL_WIDTH:
        text = text.replace(" [", "\n[")
    styled = Text(text, style={1: "green", -1: "red", 0: ""}[cell.differs if cell else 0])
    if cell is not None and cell.unscored:
        styled.append(f"\n{cell.unscored} unscored", style="dim")
    return styled


def _claim_table(results: Results) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, width=WIDTH)
    for head, width in zip(("claim", "delta", "interval", "verdict", "why"), (38, 5, 10, 12, None), strict=True):
        table.add_column(head, width=width, ratio=1 if width is None else None, overflow="fold")
    for statement, arms, delta, ci, verdict, why in claim_rows(results):
        claim = Text(textwrap.shorten(statement, 110, placeholder=" ..."))
        claim.append(f"\n{arms}", style="dim")
        table.add_row(claim, delta, Text(ci), Text(verdict, style=VERDICT_STYLES.get(verdict, "")), Text(why))
    return table


def render(results: Results, width: int = WIDTH) -> str:
    """The terminal's table as plain text."""
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, legacy_windows=False).print(rich_table(results))
    return stream.getvalue()


# -- for files -------------------------------------------------------------------------------------------------------


def markdown(results: Results) -> str:
    """The comparison as Markdown: one table of all arms with unscored answers, the claims, the caption."""
    arms = arms_of(results)
    lines = [f"# {title(results)}", ""]
    lines += _markdown_table(("axis", "metric", "n", *arms, "unscored"), _markdown_rows(rows(results), arms))
    if results["claims"]:
        lines += ["", f"## Pre-registered claims: {tally(results)}", ""]
        lines += _markdown_table(CLAIM_HEADS, claim_rows(results))
        if results.get("claims_hash"):
            lines += ["", f"claims file: sha256 {results['claims_hash']}"]
    if curve := doses.rows(results, _number):
        lines += ["", f"## {doses.TITLE}", "", *_markdown_table(doses.heads(results), curve), ""]
        lines += [f"* {_escaped(line)}" for line in doses.matched_lines(results)]
    lines += ["", *(f"* {_escaped(line)}" for line in captions(results))]
    return "\n".join(lines) + "\n"


def _markdown_rows(found: Sequence[Row], arms: Sequence[str]) -> list[tuple[str, ...]]:
    out = []
    for row in found:
        name = f"{row.metric} {row.arrow}" if row.group is None else f"{row.metric}: {row.group}"
        lost = "" if row.group is not None else unscored(row, arms) or "0"
        cells = (cell_text(row.cells.get(arm), row.share) for arm in arms)
        out.append((row.axis, name, counted(row, arms), *cells, lost))
    return out


def _escaped(text: str) -> str:
    for character in "\\|*<>`":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", " ")


def _markdown_table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    line: Callable[[Sequence[str]], str] = lambda cells: "| " + " | ".join(map(_escaped, cells)) + " |"  # noqa: E731
    return [line(heads), "| " + " | ".join("---" for _ in heads) + " |", *map(line, body)]


CSV_HEADS = (
    "axis", "metric", "group", "higher_is_better", "arm", "n", "unscored", "value", "low", "high", "differs", "tag",
)  # fmt: skip


def csv_text(results: Results) -> str:
    """One line per metric (or group) and arm, numbers unrounded; `differs` is better, worse or empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADS)
    for row in rows(results):
        for arm, cell in row.cells.items():
            low, high = cell.ci or ("", "")
            tag = ("trained" if cell.trained else "generalises") if row.group is None else ""
            head = (row.axis, row.metric, row.group or "", str(row.higher_is_better).lower(), arm, cell.n)
            lost = "" if cell.unscored is None else cell.unscored
            value = "" if cell.value is None else cell.value
            writer.writerow((*head, lost, value, low, high, DIFFERS[cell.differs], tag))
    return stream.getvalue()
