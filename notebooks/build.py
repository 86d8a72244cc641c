"""Writes the notebook from its reviewed source: percent cells in, outputs none, ids that stay the same.

    python notebooks/build.py        (make notebook; prints the badge for the README where the kit has an address)
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
SOURCE, NOTEBOOK = HERE / "reproduce_small.py", HERE / "reproduce_small.ipynb"
METADATA = {
    "accelerator": "GPU",  # what Colab offers first; without one the organism runs
    "colab": {"provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
NO_BADGE = "In Colab: File > Upload notebook, with this file."


def address(citation: str) -> str | None:
    """The kit's public GitHub address from CITATION.cff (`repository-code: https://github.com/OWNER/NAME`), or None."""
    found = re.search(r"^repository-code:\s*[\"']?(https://github\.com/[\w.-]+/[\w.-]+)", citation, flags=re.M)
    return found[1].removesuffix(".git") if found else None


def badge(repository: str | None) -> str:
    """The line that opens the notebook in Colab, as Markdown; how to do it by hand while there is no address."""
    if repository is None:
        return NO_BADGE
    place = repository.removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{NOTEBOOK.name}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"


def notebook(source: str, repository: str | None) -> str:
    """The notebook's JSON. What stands before the first `# %%` is for readers of the source and stays there."""
    cells = []
    for part in re.split(r"^# %%", source, flags=re.M)[1:]:
        kind, _, body = part.partition("\n")
        body = body.strip("\n")
        if kind.strip() == "[markdown]":
            text = re.sub(r"^# ?", "", body, flags=re.M).replace("{badge}", badge(repository))
            cell = nbformat.v4.new_markdown_cell(text)
        else:
            if repository:
                body = re.sub(r'^SOURCE = ""', f'SOURCE = "{repository}"', body, flags=re.M)
            cell = nbformat.v4.new_code_cell(body)
        cells.append({**cell, "id": f"cell-{len(cells):02}"})
    made = nbformat.from_dict({"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5})
    nbformat.validate(made)
    return nbformat.writes(made) + "\n"


def build() -> str:
    """What the .ipynb should hold now."""
    repository = address((HERE.parent / "CITATION.cff").read_text(encoding="utf-8"))
    return notebook(SOURCE.read_text(encoding="utf-8"), repository)


if __name__ == "__main__":
    NOTEBOOK.write_text(build(), encoding="utf-8")
    print(f"{NOTEBOOK}\n{badge(address((HERE.parent / 'CITATION.cff').read_text(encoding='utf-8')))}")
