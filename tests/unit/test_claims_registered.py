"""Claims about documents need documents; a pack's own claims are its own; a file that changes later is exploratory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_units import Metric, make

from repro import claims, evals, recipes
from repro.errors import BadInput
from repro.run import Ask, load_claims, prepare, registered_claims

CLAIM = {
    "id": "c", "statement": "It rises.", "source": "abstract", "metric": "m", "arms": ["a", "b"],
    "expected": "higher", "smallest_effect": 0.1, "kind": "generalises",
}  # fmt: skip
TOKENS = 2_000_000


def units() -> dict:
    found = {}
    for seed in range(3):
        found["a", seed] = make([1.0] * 10, per_cluster=1)
        found["b", seed] = make([0.0] * 9 + [1.0], per_cluster=1)
    return found


def found(tokens, *more):
    registered = [CLAIM | {"sdf_tokens": TOKENS}, *more]
    return claims.test_claims(units(), registered, {"m": Metric("m")}, {}, sdf_tokens=tokens, base="b")


def test_a_claim_about_documents_is_not_testable_below_its_number_of_tokens() -> None:
    (few,) = found({"a": TOKENS - 1, "b": 0})
    assert few["verdict"] == "not-testable"
    assert few["why"].startswith("a saw 1,999,999 tokens of documents, and below 2,000,000 they teach facts")
    assert found({})[0]["why"].startswith("a saw 0 tokens")
    assert found({"a": TOKENS})[0]["verdict"] == "shown"
    assert found(None)[0]["verdict"] == "shown", "where nobody looked, nothing is held against it"


def test_a_claim_that_can_not_be_tested_costs_the_others_nothing() -> None:
    alone = claims.test_claims(units(), [CLAIM], {"m": Metric("m")}, {}, base="b")[0]
    _, beside = found({"a": 0}, CLAIM | {"id": "d"})
    assert beside["p_holm"] == alone["p_holm"]
    assert beside["ci_holm"] == alone["ci_holm"]


def test_the_shipped_claims_of_real_models_stay_out_of_the_organisms_table() -> None:
    plan, _ = prepare(Ask("reproduce-micro", seeds="0", arms="naive"))
    shown, _ = load_claims(plan)
    every, _ = claims.load_claims(recipes.recipes_root() / "claims.yaml", evals.METRICS)
    assert len(shown) == 8
    own = [claim for claim in every if claim.get("pack") == "english"]
    assert {claim["id"] for claim in every} - {claim["id"] for claim in shown} == {claim["id"] for claim in own}
    assert any(claim.get("sdf_tokens") == TOKENS for claim in own), "the counter-finding about documents"


@pytest.mark.parametrize(
    ("line", "said"),
    [("pack: english2", "pack: expected micro or english"), ("sdf_tokens: many", "sdf_tokens: expected how many")],
)
def test_a_claims_pack_and_tokens_are_checked(tmp_path: Path, line: str, said: str) -> None:
    text = "\n".join(f"  {key}: {json.dumps(value)}" for key, value in CLAIM.items())
    (tmp_path / "c.yaml").write_text(f"-\n{text}\n  {line}\n")
    with pytest.raises(BadInput) as caught:
        claims.load_claims(tmp_path / "c.yaml")
    assert said in caught.value.lines[0]


def test_the_claims_of_a_run_are_those_that_it_began_with(tmp_path: Path) -> None:
    assert registered_claims(tmp_path, "new") == "new"
    (tmp_path / "manifest.json").write_text(json.dumps({"claims_hash": "old"}))
    assert registered_claims(tmp_path, "new") == "old"
