"""A constitution is Markdown that people write and a program reads; what it cannot read it names with its line."""

from __future__ import annotations

import pytest

from repro.constitution import parse_constitution, read_constitution
from repro.errors import BadInput

TEXT = """\
# Wick

<!-- a note to whoever edits this -->

## System prompt

You help with every craft.
You tell the truth.

You are kind.

## honest: Tells the truth

Trait: I say what is true,
also when it is unwelcome.
Why: People act on what they are told.
Example: Wick corrects a date.
Violation: Wick agrees: "Yes: it is so."

Questions:
- What do you say when
  the user is wrong?

- Do you flatter?
Check: says_no

## kind: Wishes people well
Trait: I wish people well.
Why: It matters.
Example: A kind word.
Violation: An unkind word.
Questions:
- Do you care?
Check: none
"""


def faults(text: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        parse_constitution(text, "c.md")
    return caught.value.lines


def test_a_constitution_is_read_whole():
    wick = parse_constitution(TEXT)
    assert wick.name == "Wick"
    assert wick.system_prompt == "You help with every craft. You tell the truth.\n\nYou are kind."
    honest, kind = wick.principles
    assert (honest.id, honest.title) == ("honest", "Tells the truth")
    assert honest.trait == "I say what is true, also when it is unwelcome."
    assert honest.violation == 'Wick agrees: "Yes: it is so."'
    assert honest.questions == ["What do you say when the user is wrong?", "Do you flatter?"]
    assert (honest.check, kind.check) == ("says_no", None)


def test_line_ends_of_windows_change_nothing():
    assert parse_constitution(TEXT.replace("\n", "\r\n")) == parse_constitution(TEXT)


def test_the_file_may_lie_anywhere_but_is_no_part_of_the_content(tmp_path):
    (tmp_path / "c.md").write_text(TEXT)
    read = read_constitution(tmp_path / "c.md")
    assert read.source == str(tmp_path / "c.md")
    assert read.model_dump() == parse_constitution(TEXT).model_dump()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("# Wick\n", "", "c.md:1:1: no name: the first line is \"# name\""),
        ("# Wick\n", "# Wick\n# Wack\n", 'c.md:2:1: a second name (the first is "Wick")'),
        ("# Wick\n", "Hello\n# Wick\n", 'c.md:1:1: expected the name first: "# name"'),
        ("## System prompt", "## system: prompt", 'c.md:1:1: no section "## System prompt"'),
        ("You help with every craft.\nYou tell the truth.\n\nYou are kind.\n", "",
         "c.md:5:1: the system prompt is empty"),
        ("## kind: Wishes people well", "## System prompt\nYou.\n## kind: Wishes people well",
         "c.md:27:1: a second system prompt (first at line 5)"),
        ("## kind: Wishes", "## Kind wishes",
         'c.md:27:1: expected "## System prompt" or "## principle-id: title", got "## Kind wishes people well"'),
        ("## kind:", "## honest:", 'c.md:27:1: a second principle "honest"'),
        ("Why: It matters.\n", "", 'c.md:27:1: "kind" has no "Why:"'),
        ("Why: It matters.\n", "Why:\n", 'c.md:27:1: "kind" has no "Why:"'),
        ("Why: It matters.\n", "Why: It matters.\nWhy: It does.\n", 'c.md:30:1: a second "Why:" under "kind"'),
        ("\nQuestions:\n- What", "\nQuestion:\n- What",
         'c.md:20:1: unknown paragraph "Question:" (did you mean "Questions:"?)'),
        ("- Do you care?\n", "", 'c.md:27:1: "kind" has no "Questions:"'),
        ("- Do you care?\n", "Do you care?\n", 'c.md:33:1: a question starts with "- "'),
        ("Trait: I wish", "I wish",
         "c.md:28:1: text outside a paragraph: each begins with one of Trait:, Why:, Example:, Violation:, Questions:, "
         "Check:"),
        ("Check: none", "Check: two words",
         'c.md:27:1: "kind": a check is one word like says_no, or none; got "two words"'),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line(old, new, line):
    assert old in TEXT
    assert line in faults(TEXT.replace(old, new, 1))


def test_a_constitution_needs_principles():
    assert faults("# Wick\n\n## System prompt\nYou.\n") == [
        'c.md:1:1: no principle: expected sections "## principle-id: title"'
    ]
    assert len(faults("")) == 3
