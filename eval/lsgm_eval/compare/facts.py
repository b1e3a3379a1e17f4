"""What two runs were told and given, and where they differ: configuration, versions, data, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lsgm_eval.compare.sides import Row, Side
from lsgm_eval.compare.trainings import Training

__all__ = ["Fact", "config_facts", "data_facts", "differing", "flat", "machine_facts", "training_facts"]


@dataclass(frozen=True)
class Fact:
    """One thing that is known of A, of B, or of both; None where it is not."""

    name: str
    a: Any
    b: Any

    @property
    def kind(self) -> Literal["same", "changed", "only A", "only B"]:
        """How the two stand to each other."""
        if self.a == self.b:
            return "same"
        if self.a is None or self.b is None:
            return "only B" if self.a is None else "only A"
        return "changed"


def differing(facts: Sequence[Fact]) -> list[Fact]:
    """Return those that are not the same in both."""
    return [fact for fact in facts if fact.kind != "same"]


def flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as ``{"a.b.c": value}``; an empty table is no key at all."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _side_by_side(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Fact]:
    return [Fact(name, a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])]


def config_facts(a: Training, b: Training) -> list[Fact]:
    """Return every key of either configuration; one that is absent, as None in TOML is, is None."""
    return _side_by_side(flat(a.config), flat(b.config))


def training_facts(a: Training, b: Training) -> list[Fact]:
    """Return steps, images and seconds of training, and the last validation terms (in nats)."""
    return _side_by_side(_trained(a), _trained(b))


def _trained(run: Training) -> dict[str, Any]:
    seconds = run.state.get("seconds_by_stage") or {}
    found = {"steps": run.state.get("step"), "images": run.state.get("images")}
    found |= {f"seconds of {stage}": value for stage, value in seconds.items()}
    found |= {"finished": run.state.get("finished")}
    at = run.validation.get("step")
    found |= {"validated at step": at}
    found |= {f"validation {name}": value for name, value in run.validation.items() if name != "step"}
    return {name: value for name, value in found.items() if value is not None}


class Machine(Protocol):
    """A call, of a training or of a measurement, that knows what it ran on."""

    @property
    def versions(self) -> Mapping[str, Any]: ...
    @property
    def hardware(self) -> Any: ...


def machine_facts(a: Machine, b: Machine, what: str) -> list[Fact]:
    """Return versions and hardware of two calls, named ``what``."""
    facts = [Fact(f"{fact.name} ({what})", fact.a, fact.b) for fact in _side_by_side(a.versions, b.versions)]
    return [*facts, Fact(f"hardware ({what})", a.hardware, b.hardware)]


def data_facts(
    sides: tuple[Side, Side], models: tuple[str, str] | None, runs: Sequence[Training | None]
) -> list[Fact]:
    """Return what was trained on, and on what the chosen models were measured, one fact for each field."""
    first, second = ((run.dataset if run else {}) for run in runs)
    facts = [
        Fact(f"training data {name}", first.get(name), second.get(name))
        for name in ("name", "version", "sha256")
    ]
    if models is None:
        return [fact for fact in facts if not fact.a is fact.b is None]
    rows = [side.of(model) for side, model in zip(sides, models, strict=True)]
    return facts + [
        Fact(title, _values(rows[0], key), _values(rows[1], key))
        for title, key in (
            ("weights", "checkpoint_sha256"),
            ("measured data", "dataset"),
            ("bits scored", "levels_sha256"),
            ("extractor", "extractor"),
            ("reference", "reference_sha256"),
        )
    ]


def _values(rows: Sequence[Row], key: str) -> str | None:
    """Return all that rows say under a key, joined; None where they say nothing."""
    found = dict.fromkeys(str(row[key]) for row in rows if row.get(key) is not None)
    return ", ".join(found) or None
