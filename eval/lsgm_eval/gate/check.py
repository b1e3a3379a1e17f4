"""The gate as one call, for the command and for pytest: a checkpoint, a golden file, and the verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lsgm_eval.gate.golden import Golden, default_golden, read_golden
from lsgm_eval.gate.measure import Measured, measure_estimates, measure_replays
from lsgm_eval.gate.subject import open_subject, require_same, task_of
from lsgm_eval.gate.verdict import Verdict, judge

__all__ = ["Outcome", "check"]


@dataclass(frozen=True)
class Outcome:
    """What the gate found of a checkpoint."""

    golden: Golden
    verdicts: tuple[Verdict, ...]
    remarks: tuple[str, ...]
    """What a reader must know beside the verdicts."""

    @property
    def failing(self) -> list[Verdict]:
        """The rows that do not stand."""
        return [verdict for verdict in self.verdicts if not verdict.passed]


def check(
    checkpoint: str,
    golden: Path | None = None,
    *,
    task: str = "",
    data: str = "",
    seeds: int = 0,
    retrained: bool = False,
    device: str = "cpu",
) -> Outcome:
    """Measure a checkpoint again and judge every golden row.

    ``seeds`` chooses the seeds of the estimates, which are never those that the golden rows were made with;
    replays have their own. ``task`` is a TOML file where the golden rows are of a task of one's own,
    ``data`` a folder or zip of images where they are of one.
    Raises UserError where the rows cannot be checked: no such file, another task version, other data.
    """
    rows = read_golden(golden or default_golden(Path(checkpoint)))
    subject, described = open_subject(checkpoint, task or task_of(rows), rows.plan, data=data, device=device)
    require_same(rows, subject, described)
    found = Measured()
    if not retrained:
        measure_replays(subject, found)
    measure_estimates(subject, found, repeat=rows.plan.repeats + seeds)
    remarks = []
    if subject.model.sha256 != rows.checkpoint_sha256:
        remarks.append(
            f"these weights, {subject.model.sha256[:12]}, are not those of the golden rows, "
            f"{rows.checkpoint_sha256[:12]}"
        )
    return Outcome(rows, tuple(judge(rows, found, retrained=retrained)), tuple(remarks))
