"""Reads a constitution: Markdown whose headings and labelled paragraphs a program can follow and a person can read.

# Wick                              the assistant's name
## System prompt                    what the arm `prompted` is told, one or more paragraphs
## honest: Tells the truth          one section a principle, `id: title`, each with these paragraphs:
Trait: ...                          in the first person
Why: ...
Example: ...                        what it looks like when kept
Violation: ...                      what it looks like when broken
Questions:                          a list of questions that bring the principle up
- ...
Check: says_no                      the offline check that a reward may use, or `none`
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from repro.errors import BadInput
from repro.yamltree import did_you_mean, read_text, shown

LABELS = ("Trait", "Why", "Example", "Violation", "Questions", "Check")
_ID = re.compile(r"[a-z][a-z0-9_-]*")


class Principle(BaseModel):
    """One trait of the character, with the material that data and rewards are made from."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    id: str = Field(description="Short name, unique in the constitution.")
    title: str = Field(description="The principle as a heading.")
    trait: str = Field(description="The principle in the assistant's own words.")
    why: str = Field(description="The reason for it.")
    example: str = Field(description="Behaviour that keeps it.")
    violation: str = Field(description="Behaviour that breaks it.")
    questions: list[str] = Field(description="Questions that bring it up.")
    check: str | None = Field(description="Name of the offline check a reward may use; null where there is none.")


class Constitution(BaseModel):
    """A character in plain words: its name, its system prompt, its principles."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    name: str = Field(description="The assistant's name.")
    source: str = Field(exclude=True, description="The file it was read from.")
    system_prompt: str = Field(description="The text of the arm `prompted`.")
    principles: list[Principle] = Field(description="In the order of the file.")


def read_constitution(path: str | Path) -> Constitution:
    """The constitution in a Markdown file. BadInput lists every fault as file:line:column."""
    return parse_constitution(read_text(Path(path)), shown(Path(path)))


def parse_constitution(text: str, source: str = "constitution") -> Constitution:
    """The constitution in a text; `source` is how errors name it."""
    problems: list[str] = []

    def problem(line: int, message: str) -> None:
        problems.append(f"{source}:{line}:1: {message}")

    name, sections = _sections(text, problem)
    system_prompt = ""
    principles: dict[str, Principle] = {}
    prompt_line = 0
    for line, heading, body in sections:
        if heading.casefold() == "system prompt":
            if prompt_line:
                problem(line, f"a second system prompt (first at line {prompt_line})")
            prompt_line = line
            paragraphs = "\n".join(words for _, words in body).split("\n\n")
            system_prompt = "\n\n".join(" ".join(p.split()) for p in paragraphs if p.strip())
            if not system_prompt:
                problem(line, "the system prompt is empty")
            continue
        identifier, colon, title = (part.strip() for part in heading.partition(":"))
        if not (colon and title and _ID.fullmatch(identifier)):
            problem(line, f'expected "## System prompt" or "## principle-id: title", got "## {heading}"')
            continue
        if identifier in principles:
            problem(line, f'a second principle "{identifier}"')
        fields = _paragraphs(line, identifier, body, problem)
        if fields is not None:
            principles[identifier] = Principle(id=identifier, title=title, **fields)
    if not prompt_line:
        problem(1, 'no section "## System prompt"')
    if not any(heading.casefold() != "system prompt" for _, heading, _ in sections):
        problem(1, 'no principle: expected sections "## principle-id: title"')
    if problems:
        raise BadInput(problems)
    return Constitution(name=name, source=source, system_prompt=system_prompt, principles=list(principles.values()))


def _sections(text, problem) -> tuple[str, list[tuple[int, str, list[tuple[int, str]]]]]:
    """The name, and each `##` section as (line, heading, body lines with their numbers); comment lines are skipped."""
    name = ""
    sections: list[tuple[int, str, list[tuple[int, str]]]] = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.rstrip()
        if words.startswith("<!--") and words.endswith("-->"):
            continue
        if words.startswith("## "):
            sections.append((number, words[3:].strip(), []))
        elif words.startswith("# "):
            if name:
                problem(number, f'a second name (the first is "{name}")')
            name = name or words[2:].strip()
        elif sections:
            sections[-1][2].append((number, words))
        elif words and not name:
            problem(number, 'expected the name first: "# name"')
            name = "?"
    if not name:
        problem(1, 'no name: the first line is "# name"')
    return name, sections


def _paragraphs(heading_line, identifier, body, problem) -> dict | None:
    """The labelled paragraphs of one principle as fields, or None where something is missing or misplaced."""
    found: dict[str, list[str]] = {}
    label, open_paragraph, sound = "", False, True
    for number, words in body:
        match = re.match(r"([A-Z][A-Za-z]*):(?: |$)", words)
        if not words.strip():
            open_paragraph = label == "Questions"  # a list may have blank lines between its items
        elif match and (match[1] in LABELS or not open_paragraph):
            label, open_paragraph = match[1], True
            if label not in LABELS:
                problem(
                    number,
                    f'unknown paragraph "{label}:"{did_you_mean(f"{label}:", [f"{known}:" for known in LABELS])}',
                )
                sound = False
            elif label in found:
                problem(number, f'a second "{label}:" under "{identifier}"')
                sound = False
            found.setdefault(label, [])
            if match.end() < len(words):
                found[label].append(words[match.end() :].strip())
        elif not open_paragraph:
            problem(number, f"text outside a paragraph: each begins with one of {', '.join(L + ':' for L in LABELS)}")
            sound = False
        elif label == "Questions" and not words.startswith(("- ", " ")):
            problem(number, 'a question starts with "- "')
            sound = False
        elif label == "Questions" and words.startswith("- "):
            found[label].append(words[2:].strip())
        elif found[label]:
            found[label][-1] += " " + words.strip()
        else:
            found[label].append(words.strip())
    for label in LABELS:
        if not any(found.get(label, [])):
            problem(heading_line, f'"{identifier}" has no "{label}:"')
            sound = False
    if not sound:
        return None
    check = found["Check"][0]
    if not _ID.fullmatch(check):
        problem(heading_line, f'"{identifier}": a check is one word like says_no, or none; got "{check}"')
        return None
    texts = {label.lower(): " ".join(found[label]) for label in ("Trait", "Why", "Example", "Violation")}
    return {**texts, "questions": found["Questions"], "check": None if check == "none" else check}
