"""The sampling benchmark's rows as a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence

from lsgm.bench.tables import Row, spread, table

__all__ = ["page"]


def page(rows: Sequence[Row], *, about: str) -> str:
    """Return the page: the machine, images per second, and the samplers' own time where it was measured."""
    speeds = [row for row in rows if row["what"] == "speed"]
    overheads = [row for row in rows if row["what"] == "overhead"]
    parts = ["# What sampling costs", about, "## Images per second", table(_SPEEDS, map(_speed, speeds))]
    parts.append(
        "Medians with quartiles, whole batches from noise to pixels; weights as initialised, which does not "
        "change the cost of a fixed number of evaluations. One evaluation in latents and one of whole "
        "images are different amounts of work: compare images per second, not evaluations."
    )
    parts += sorted({f"{row['recipe']}: {row['note']}." for row in speeds if "note" in row})
    if overheads:
        parts += ["## Outside the network", table(_OVERHEADS, map(_overhead, overheads))]
        parts.append(
            "A sampler's own time per step, with a score that costs nothing, against bare evaluations of the "
            "network as many as the step makes; the last column is the ratio of the two."
        )
    return "\n\n".join(parts) + "\n"


_SPEEDS = ("recipe", "way", "sampler", "NFE", "batch", "images/s", "decoder, ms/image", "decoder's share")
_OVERHEADS = ("recipe", "sampler", "steps", "batch", "own, ms/step", "network, ms/step", "own / network")


def _speed(row: Row) -> list[str]:
    head = [row["recipe"], row["way"], f"{row['sampler']}, {row['steps']} steps"]
    if "note" in row:
        return [*head, "–", str(row["batch_size"]), "–", "–", "–"]
    rate = [f"{row[f'images_per_second{end}']:.3g}" for end in ("", "_q1", "_q3")]
    return [
        *head,
        str(row["nfe"]),
        str(row["batch_size"]),
        f"{rate[0]} ({rate[1]}–{rate[2]})",
        f"{row['decoder_ms_per_image']:.3g}",
        f"{row['decoder_share']:.1%}",
    ]


def _overhead(row: Row) -> list[str]:
    share = [f"{row[f'overhead{end}']:.1%}" for end in ("", "_q1", "_q3")]
    return [
        row["recipe"],
        row["sampler"],
        str(row["steps"]),
        str(row["batch_size"]),
        spread(row, "own_ms", 1),
        spread(row, "network_ms", 1),
        f"{share[0]} ({share[1]}–{share[2]})",
    ]
