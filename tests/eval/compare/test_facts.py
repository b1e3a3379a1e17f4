"""Two sets of facts side by side: what agrees, what changed, what only one has."""

from __future__ import annotations

from lsgm_eval.compare.facts import Fact, differing


def test_what_changed_and_what_only_one_has_differ() -> None:
    facts = [Fact("same", 1, 1), Fact("new", 1, 2), Fact("gone", 1, None), Fact("added", None, 0)]
    assert [fact.name for fact in differing(facts)] == ["new", "gone", "added"]
