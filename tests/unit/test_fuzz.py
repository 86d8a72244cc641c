"""The fuzzers' corpus and a few hundred mutations: what reads files from outside refuses them or reads them."""

from __future__ import annotations

import fuzzing
import pytest


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_the_corpus_and_its_mutations_are_read_or_refused(target: str) -> None:
    tried, finds = fuzzing.attack(target, len(fuzzing.seeds(target)) + 60, minutes=1.0)
    assert tried > 50
    assert finds == []


def test_a_find_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(data: bytes, place: object) -> None:
        if b"{" in data:
            raise KeyError("x")

    monkeypatch.setitem(fuzzing.TARGETS, "rows", fails)
    assert fuzzing.attack("rows", 30, minutes=1.0)[1]
