"""Two sets of facts side by side: what agrees, what changed, what only one has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lsgm_eval.compare.facts import Fact, differing, flat

LEAVES = st.integers() | st.booleans() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
TABLES = st.recursive(
    st.dictionaries(st.text("abc", min_size=1, max_size=2), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.text("xyz", min_size=1, max_size=2), inner, max_size=3),
    max_leaves=8,
)


def test_keys_of_nested_tables_are_dotted() -> None:
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e": "f"}) == {"a.b": 1, "a.c.d": [2], "e": "f"}


@given(TABLES)
def test_flat_tables_are_flat_and_lose_no_leaf(tables: dict[str, object]) -> None:
    def leaves(value: object) -> int:
        return sum(map(leaves, value.values())) if isinstance(value, dict) else 1

    found = flat(tables)
    assert len(found) == leaves(tables)
    assert not any(isinstance(value, dict) for value in found.values())


def test_facts_are_the_same_changed_or_of_one_side() -> None:
    facts = [Fact("same", 1, 1), Fact("new", 1, 2), Fact("gone", 1, None), Fact("added", None, 0)]
    assert [fact.kind for fact in facts] == ["same", "changed", "only A", "only B"]
    assert [fact.name for fact in differing(facts)] == ["new", "gone", "added"]
