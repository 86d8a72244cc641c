"""Files are taken for what they are by any key that tells, and what comes with the package is listed with its words."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro import recipes
from repro.yamltree import read_yaml


@pytest.mark.parametrize(
    ("key", "kind"),
    [(key, "experiment") for key in ("arms", "model", "seeds", "evaluation", "claims", "start", "needs", "fallback",
                                     "quant")]
    + [("path_or_hub", "model"), ("stages", "recipe"), ("paper", "recipe")],
)  # fmt: skip
def test_one_key_tells_what_a_file_is(tmp_path: Path, key: str, kind: str) -> None:
    (tmp_path / "file.yaml").write_text(f"{key}: x\n")
    assert recipes._path_and_kind(str(tmp_path / "file.yaml")) == (tmp_path / "file.yaml", kind)


def test_a_list_is_claims_and_markdown_is_a_constitution(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("- id: x\n")
    (tmp_path / "file.md").write_text("# Words\n")
    assert recipes._path_and_kind(str(tmp_path / "file.yaml"))[1] == "claims"
    assert recipes._path_and_kind(str(tmp_path / "file.md"))[1] == "constitution"


def test_everything_listed_has_its_own_file_and_that_file_s_words() -> None:
    listed = recipes.list_recipes()
    assert {one.kind for one in listed} == {"experiment", "recipe", "model"}
    assert listed[0].kind == "experiment"
    for one in listed:
        assert one.path.is_file()
        assert one.path.stem == Path(one.name).name
        fields = read_yaml(one.path).value
        words = fields.get("description") or fields.get("notes")
        assert one.description == (str(words.value) if words is not None else "")
    assert all(one.description for one in listed if one.kind != "recipe")


def test_every_yaml_and_markdown_file_of_a_folder_is_checked(tmp_path: Path) -> None:
    root = recipes.recipes_root()
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.yml").write_text((root / "models" / "micro.yaml").read_text())
    (tmp_path / "inner" / "b.yaml").write_text("schema: 1\nname: b\nstages: [{kind: sft, data: ordinary, steps: 1}]\n")
    (tmp_path / "c.md").write_text((root / "micro" / "constitution.md").read_text())
    (tmp_path / "d.txt").write_text("not for us")
    found = recipes.validate([str(tmp_path)])
    assert [(Path(path).name, kind) for path, kind in found] == [
        ("a.yml", "model"), ("c.md", "constitution"), ("b.yaml", "recipe"),
    ]  # fmt: skip


def test_what_is_set_is_shown_with_where_it_comes_from(tmp_path: Path) -> None:
    change = ["arms.naive.stages.sft.batch=7"]
    assert ("arms.naive.stages.sft.batch", "7") in recipes.show("reproduce-micro", sets=change)
    where = {row[0]: row[1:] for row in recipes.show("reproduce-micro", sets=change, origin=True)}
    assert where["arms.naive.stages.sft.batch"] == ("7", "--set")
    assert where["arms.control.stages.sft.batch"][0] != "7"
