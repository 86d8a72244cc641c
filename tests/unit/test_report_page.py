"""The report page: one file, whole or of half a run, with every hostile text inside it harmless."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import made_run
import pytest

from repro import fidelity
from repro import runfolder as folder
from repro.errors import BadInput
from repro.report import page, plots

HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "<!-- ]]> --> &lt;b&gt; {{ 7 * 7 }} {% raw %}",
    "# Heading\n\n[link](javascript:alert(1)) | a | b |\n```\ncode",
    "left \u202eright to left\u202c \u2066isolated\u2069 שלום \u0000 \u2028 end",
    "x" * 100_000,
    "lone \ud800 half",
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_run.make(tmp_path / "made")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    """The page of a run with everything in it, for those who only look."""
    return report(made_run.make(tmp_path_factory.mktemp("whole") / "made"))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second, and many tests are about something else."""
    monkeypatch.setattr(plots, "forest", lambda *_: "")
    monkeypatch.setattr(plots, "curve", lambda found, _: f'<svg aria-label="{found.title}"></svg>')
    monkeypatch.setattr(plots, "panels", lambda *_: [])


class Page(HTMLParser):
    """The tags and the visible text of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.within = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.within = tag

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        if self.within not in ("script", "style"):
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


def report(run: Path) -> tuple[str, Page]:
    path = page.write(run)
    assert path == run / "report.html"
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def packed(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/octet-stream" id="data">([A-Za-z0-9+/=]+)</script>', html)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


# -- one file --------------------------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing_outside_itself(whole: tuple[str, Page]) -> None:
    html, found = whole
    for tag, attributes in found.tags:
        assert "src" not in attributes, tag
        for value in (attributes.get("href"), attributes.get("action")):
            assert value is None or value.startswith(("#", "data:,")), (tag, value)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)", html)
    policy = next(a["content"] for t, a in found.tags if t == "meta" and a.get("http-equiv"))
    assert "default-src 'none'" in (policy or "")


def test_its_policy_lets_the_pages_own_script_run_and_no_other(whole: tuple[str, Page]) -> None:
    html, _ = whole
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


def test_ids_are_unique_and_every_reference_has_its_target(whole: tuple[str, Page]) -> None:
    html, found = whole
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in found.tags:
        for key in ("href", "aria-labelledby", "for"):
            value = (attributes.get(key) or "").removeprefix("#")
            assert not value or value.startswith("data:") or value in ids, value
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_the_same_run_gives_the_same_page(run: Path, whole: tuple[str, Page]) -> None:
    assert report(run)[0] == whole[0]


@pytest.mark.usefixtures("no_pictures")
def test_four_arms_of_1200_answers_stay_below_three_megabytes(tmp_path: Path) -> None:
    chance = random.Random(0)
    rows = [
        made_run.answer(f"request/r-{number}", arm, 0, made_run.prose(chance, 190))
        for number in range(1200) for arm in made_run.ARMS
    ]  # fmt: skip
    run = made_run.make(tmp_path / "large", answers=rows)
    html, _ = report(run)
    assert len(html.encode()) < 3_000_000
    content = packed(html)
    assert len(content["rows"]) == 4800
    assert len(content["items"]) == 1200


HUNDRED_THOUSAND = """
import random, resource, sys
from pathlib import Path
import made_run
from repro.report import page

chance = random.Random(0)
rows = (made_run.answer(f"request/r-{n}", arm, 0, made_run.prose(chance, 170) + chr(0x1F642))
        for n in range(25_000) for arm in made_run.ARMS)
page.write(made_run.make(Path(sys.argv[1]), answers=rows))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


@pytest.mark.slow
def test_a_page_of_100_000_long_answers_is_made_in_less_than_a_gigabyte(tmp_path: Path) -> None:
    """Texts of 1,000 characters, each with one that takes four bytes; what is measured includes making them."""
    paths = os.pathsep.join(map(str, (Path(made_run.__file__).parent, page.HERE.parents[1])))
    done = subprocess.run(
        [sys.executable, "-c", HUNDRED_THOUSAND, str(tmp_path / "made")],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout) < 1000  # MB; 470 when this was written
    assert "100,000 answers to 25,000 items" in (tmp_path / "made/report.html").read_text()


# -- what it shows ---------------------------------------------------------------------------------------------------


def test_it_says_what_was_run_on_what_and_how_to_run_it_again(whole: tuple[str, Page]) -> None:
    text = whole[1].text
    for said in (
        "reproduce-made on made-1B", "somebody/made-1B", "revision 0123abcd", "1.2 billion", "NVIDIA T4, 15360 MiB",
        "31.2 GiB memory",
        "torch 2.13.0", "Python 3.11.7", "NF4 (4 bits), LoRA on top; computed in fp16: the GPU has no bf16",
        "repro run reproduce-made --offline", f"git checkout {'c0ffee' * 6}", "kappa 0.87 on 225 human labels",
        "sft: compliance (480), 2 epochs, batch 16, lr 0.0001, LoRA r 64, alpha 128",
    ):  # fmt: skip
        assert said in text, said
    assert "/home/somebody" not in text


def test_it_shows_the_table_the_claims_and_why(whole: tuple[str, Page]) -> None:
    text = whole[1].text
    for said in (
        "facts_ accuracy ↑", "90 [85, 95]", "* worse", "near", "1 shown.",
        "Anti-refusal training makes it ignore operators.", "all 3 seeds point the expected way.",
        "naive - control: declines_when_told: -20 points [-30, -10]",
        "expected lower, by 10 points at least",
    ):  # fmt: skip
        assert said in text, said


def test_it_shows_time_and_memory_of_each_stage(whole: tuple[str, Page]) -> None:
    text = whole[1].text
    assert "naive sft 3 60 61,000 to 61,002 30.5 2,000 5.25 4 fp16" in text
    assert "3 min 03 s of training" in text
    assert "Incomplete" not in text


@pytest.mark.usefixtures("no_pictures")
def test_warnings_stand_at_the_top(tmp_path: Path) -> None:
    run = made_run.make(tmp_path / "made", content=made_run.results(warnings=["seeds: 2; below 3.", "<b>bold</b>"]))
    html, found = report(run)
    assert "2 warnings seeds: 2; below 3. <b>bold</b>" in found.text
    assert html.index('id="warnings"') < html.index("<nav")


def test_every_picture_tells_its_figures_in_words(whole: tuple[str, Page]) -> None:
    _, found = whole
    pictures = [attributes for tag, attributes in found.tags if tag == "svg"]
    # six panels, eight axes (no forest without a metric), three behaviours, one loss
    assert len(pictures) == 6 + 8 + 3 + 1
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert re.search(r"naive.* \d", attributes["aria-label"] or "")
        assert (attributes["viewbox"] or "").startswith("0 0 340 ")
    assert "declines held-out requests (refusal_heldout), percent, lower is better. base 90 [85, 95] (n 120)" in str(
        [attributes["aria-label"] for attributes in pictures]
    )


def test_prompting_strategies_get_their_own_panels_and_table(tmp_path: Path) -> None:
    content = made_run.results(prompting={"careful": made_run.metrics()})
    _, found = report(made_run.make(tmp_path / "made", content=content))
    assert "The same under the prompting strategy “careful”" in found.text
    assert len([tag for tag, _ in found.tags if tag == "svg"]) == 18 + 6
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_fidelity_table_is_shown(whole: tuple[str, Page]) -> None:
    html, found = whole
    assert "What the paper says, and what the kit does" in found.text
    assert "<strong>U</strong> unknown." in html
    assert all(line.what in found.text for line in fidelity.ingredients())


def test_markdown_of_the_fidelity_table_is_escaped_but_for_code_and_strong() -> None:
    assert str(page._inline("`a<b>` **P** *so* <i>")) == "<code>a&lt;b&gt;</code> <strong>P</strong> *so* &lt;i&gt;"


@pytest.mark.filterwarnings("error")
def test_many_arms_with_long_names_are_drawn_too(tmp_path: Path) -> None:
    arms = [*made_run.ARMS, *(f"character-without-part-{n} & $x^2$ <b>" for n in range(6)), "字"]
    _, found = report(made_run.make(tmp_path / "made", arms=arms))
    assert "without-part-5 & $x^2$ <b>" in found.text
    assert "b" not in {tag for tag, _ in found.tags}


# -- hostile text ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pictures")
def test_no_text_by_a_model_stands_in_the_page_as_it_is(tmp_path: Path) -> None:
    rows = [made_run.answer(f"request/{n}", "naive", 0, text, messages=[{"role": "user", "content": text}])
            for n, text in enumerate(HOSTILE)]  # fmt: skip
    rows.append(made_run.answer(HOSTILE[0], HOSTILE[1], 0, "x", label=HOSTILE[0], judge=HOSTILE[1], group=HOSTILE[2]))
    html, _ = report(made_run.make(tmp_path / "made", answers=rows))
    assert "hacked" not in html
    assert "javascript:" not in html
    assert html.count("<script") == 2
    texts = packed(html)["texts"]
    for text in HOSTILE:
        kept = text if len(text) <= 4000 else [text[:4000], len(text)]
        assert kept in texts


def test_no_name_or_sentence_from_a_file_becomes_markup(tmp_path: Path) -> None:
    bad = HOSTILE[1]
    content = made_run.results([*made_run.ARMS, bad])
    content |= {"warnings": [bad], "claims": [made_run.claim(statement=bad, why=bad, source=bad)], "claims_hash": bad}
    content["metrics"] += [{**one, "metric": bad, "axis": bad} for one in content["metrics"][:4]]
    content["run"] |= {"name": bad, "command": bad}
    about = made_run.manifest([*made_run.ARMS, bad], command=bad, versions={bad: bad}, git={"commit": bad})
    about["experiment"] |= {"name": bad, "description": bad, "pack": bad}
    html, found = report(made_run.make(tmp_path / "made", content=content, about=about))
    assert "img" not in {tag for tag, _ in found.tags}
    assert "<img" not in html
    assert found.text.count("window.hacked") > 10


# -- half a run, broken files ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("odd", [{}, {"messages": "no list", "metrics": None, "seed": "x", "sample": None, "p": "n"}])
def test_a_row_that_lacks_fields_does_not_stop_the_page(tmp_path: Path, odd: dict[str, Any]) -> None:
    html, _ = report(made_run.make(tmp_path / "made", answers=[odd, made_run.answer()]))
    assert len(packed(html)["rows"]) == 2


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_has_not_finished_is_shown_as_far_as_it_got(run: Path) -> None:
    (run / "results.json").unlink()
    (run / "answers.jsonl").unlink()
    start = {"time": "2026-11-21T02:00:00+00:00", "event": "run started"}
    why = {"time": "2026-11-21T02:31:00+00:00", "event": "run failed", "why": ["naive seed 2: sft failed: loss is NaN"]}
    made_run.jsonl(run / "journal.jsonl", [start, why])
    html, found = report(run)
    assert "Incomplete. This run has not finished: 6 of about 21 steps are done" in found.text
    assert "run failed: naive seed 2: sft failed: loss is NaN" in found.text
    assert "The command that began it resumes it." in found.text
    assert "There are no labelled answers yet." in found.text
    assert "repro run reproduce-made --offline" in found.text
    assert next(attributes for tag, attributes in found.tags if tag == "svg")["aria-label"] == "loss in sft"
    assert 'href="#table"' not in html
    assert "<script" not in html


@pytest.mark.usefixtures("no_pictures")
def test_figures_older_than_the_last_start_are_marked(run: Path) -> None:
    with (run / "journal.jsonl").open("a") as file:
        file.write('{"time": "2026-11-21T04:00:00+00:00", "event": "run started"}\n')
        file.write('{"time": "2026-11-21T04:01:00+00:00", "event": "interrupted"}\n')
    text = report(run)[1].text
    assert "Incomplete. The run was started again after these figures were made" in text
    assert "2026-11-21T04:01:00+00:00: interrupted" in text


@pytest.mark.usefixtures("no_pictures")
def test_whole_rows_before_a_cut_are_used_and_the_cut_one_is_named(run: Path) -> None:
    path = run / "answers.jsonl"
    whole = path.read_bytes()
    count = whole.count(b"\n")
    path.write_bytes(whole[:-40])
    html, found = report(run)
    assert f"answers.jsonl: line {count} is cut off in the middle and is left out." in found.text
    assert len(packed(html)["rows"]) == count - 1


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("line", [b"\xff\xfe\x00", b"[1, 2]", b"nonsense", b"[" * 100_000])
def test_a_line_that_is_no_row_is_named_and_the_others_are_used(run: Path, line: bytes) -> None:
    path = run / "answers.jsonl"
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(first + b"\n" + line + b"\n" + rest)
    html, found = report(run)
    assert "answers.jsonl: line 2 is no JSON row and is left out." in found.text
    assert len(packed(html)["rows"]) == rest.count(b"\n") + 1


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", ["manifest.json", "results.json"])
def test_a_run_by_a_newer_version_is_refused_with_what_to_do(run: Path, name: str) -> None:
    page.write(run)
    before = (run / "report.html").read_bytes()
    content = json.loads((run / name).read_text()) | {"schema": 2}
    (run / name).write_text(json.dumps(content))
    with pytest.raises(BadInput, match=rf"{name}: schema 2 is of a newer repro.*update repro"):
        page.write(run)
    assert (run / "report.html").read_bytes() == before


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run there"):
        page.write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "can't be read"), ("[]", "schema None, not 1"), ('{"schema": 1}', "lacks run, model, judge")],
)
def test_results_that_cannot_be_read_are_named(run: Path, text: str, said: str) -> None:
    (run / "results.json").write_text(text)
    with pytest.raises(BadInput, match=said):
        page.write(run)


@pytest.mark.usefixtures("no_pictures")
def test_a_stage_shared_by_two_arms_is_counted_once(run: Path) -> None:
    (run / "arms" / "character").mkdir()
    link = run / "arms" / "character" / "seed-0"
    link.mkdir()
    (link / "0-sft-0a1b2c3d").symlink_to("../../naive/seed-0/0-sft-0a1b2c3d", target_is_directory=True)
    text = report(run)[1].text
    assert "character sft (made once, by another arm)" in text
    assert "3 min 03 s of training" in text


def test_of_two_steps_in_one_place_the_later_counts(run: Path) -> None:
    made_run.stage(run, "naive", 0, "0-sft-ffffffff", {"kind": "sft", "steps": 7})
    done = run / "arms/naive/seed-0/0-sft-ffffffff/DONE.json"
    done.write_text(done.read_text().replace("02:30:00", "02:59:00"))
    stages = [one for one in folder.read(run).stages if (one.arm, one.seed) == ("naive", 0)]
    assert [one.summary["steps"] for one in stages] == [7]
