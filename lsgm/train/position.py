"""Where a run stands: counted in steps, seconds and images, and written into every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass, field
from typing import Any

from lsgm.config import StageConfig
from lsgm.errors import CheckpointError

__all__ = ["Position"]


@dataclass
class Position:
    """The counters of a run: `step` goes on over the stages, `stage_step` and `seconds` start anew."""

    step: int = 0
    stage: str = ""
    stage_step: int = 0
    seconds: float = 0.0
    images: int = 0
    stage_done: bool = False
    finished: bool = False
    seconds_by_stage: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Position:
        """Return the position in a checkpoint's `state.json`; CheckpointError where it is incomplete."""
        absent = [name for name in cls.__dataclass_fields__ if state.get(name) is None]
        if absent:
            raise CheckpointError(
                f"the checkpoint's state.json does not say '{absent[0]}', without which nothing goes on from "
                "it; restore it from a copy"
            )
        return cls(**{name: copy(state[name]) for name in cls.__dataclass_fields__})

    def as_dict(self) -> dict[str, Any]:
        """Return the counters as JSON values."""
        return asdict(self)

    def enter(self, stage: str) -> None:
        """Begin a stage."""
        self.stage, self.stage_step, self.seconds, self.stage_done = stage, 0, 0.0, False

    def progress(self, config: StageConfig) -> float:
        """Return the share of the stage's schedules that is done, in [0, 1]."""
        return min(self._used(config) / config.schedule, 1.0)

    def is_over(self, config: StageConfig) -> bool:
        """Return whether the stage's budget is used up."""
        return self._used(config) >= config.budget

    def _used(self, config: StageConfig) -> float:
        return self.stage_step if config.seconds is None else self.seconds

    def advance(self, images: int, seconds: float, config: StageConfig) -> None:
        """Count one step, and see whether it was the stage's last."""
        self.step += 1
        self.stage_step += 1
        self.images += images
        self.seconds = seconds
        self.seconds_by_stage[self.stage] = seconds
        self.stage_done = self.is_over(config)
