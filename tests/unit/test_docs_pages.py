"""The pages' tables, examples, numbers and picture are the code's or a run's; examples are as short as promised."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from repro import evals, schema, stages

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))
import generate  # noqa: E402
import picture  # noqa: E402

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_parts_are_current(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == generate.page(page), "python docs/generate.py writes it anew"


def test_every_key_and_every_metric_is_on_its_page() -> None:
    keys = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    strict = {model for model in (*vars(schema).values(), *vars(stages).values()) if isinstance(model, type)
              and issubclass(model, stages.Strict) and model is not stages.Strict}  # fmt: skip
    assert strict == set(generate.FILES.values())
    for model in strict:
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in keys
            assert field.description
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    suite = [metric for axis in evals.AXES.values() for metric in axis.METRICS]
    assert all(re.search(rf"\| {metric.axis} \| `{metric.id}`", page) for metric in suite)


def test_each_example_is_on_the_page_and_under_thirty_lines_of_code() -> None:
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    for example in (path for path in (ROOT / "docs/examples").iterdir() if path.is_file()):
        text = example.read_text(encoding="utf-8")
        assert text in page
        code = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
        assert len(code) < 30, example.name


def test_the_readmes_numbers_and_picture_are_those_of_the_kept_run() -> None:
    figures = json.loads(picture.FIGURES.read_text(encoding="utf-8"))
    assert figures["command"] == "repro run reproduce-micro"
    assert (ROOT / "README.md").read_text(encoding="utf-8") == picture.readme(figures), "python docs/picture.py"
    drawn = picture.PICTURE.read_text(encoding="utf-8")
    assert drawn == picture.picture(figures)
    root = ElementTree.fromstring(drawn)
    assert "declines held-out requests" in root.attrib["aria-label"]
    assert len(drawn) < 200_000
    assert "prefers-color-scheme: dark" in drawn
    assert not re.findall(r"(?:href|src)=\"(?!#)", drawn), "it would fetch something"
