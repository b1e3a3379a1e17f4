"""The provenance of every number: a record per row, which a page opens where the number stands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from lsgm.errors import DataError
from lsgm_reports.html.facts import Facts, call_facts, label_of, measured_facts, row_facts, said_of, value_of
from lsgm_reports.html.markup import exact, tag, words
from lsgm_reports.markdown import relative
from lsgm_reports.provenance import manifest_of, row_id
from lsgm_reports.reproduce.copied import place_word
from lsgm_reports.rows import Row

__all__ = ["Records"]

_INTRODUCTION = (
    "Each number of this report, unrounded, with what it was measured on. The command, typed in the folder "
    "of this report, says what must hold to measure it again and what to type, and does it with "
    f"{tag('code', '--run')}."
)


class Records:
    """The records of rows that lie in the files ``places`` says, for a page in the folder ``out``."""

    def __init__(self, rows: Sequence[Row], places: Mapping[Row, Path], out: Path) -> None:
        self._rows = {row_id(row): row for row in rows}
        self._places = places
        self._names = {place: relative(place, out) for place in dict.fromkeys(places.values())}
        self._shared: dict[tuple[tuple[str, str, bool], ...], str] = {}
        self._calls: dict[tuple[Path, str], tuple[str, Row]] = {}

    @property
    def labels(self) -> dict[str, str]:
        """Id of every row -> what it says, on one line."""
        return {name: said_of(row) for name, row in self._rows.items()}

    def html(self, heading: str) -> str:
        """Return the records, then what several share: data, checkpoints and code, and the measuring calls.

        ``heading`` is the element of the headings within, ``h4``.
        """
        records = "".join(self._record(name, row) for name, row in self._rows.items())
        shared = [
            tag(
                "div",
                tag(heading, f"Model, data and code ({number})") + _list(list(facts)),
                cls="facts",
                id=anchor,
            )
            for number, (facts, anchor) in enumerate(self._shared.items(), start=1)
        ]
        calls = [
            tag("div", tag(heading, f"Call {words(name)}") + _call(folder, row), cls="facts", id=anchor)
            for (folder, name), (anchor, row) in self._calls.items()
        ]
        return tag("p", _INTRODUCTION) + tag("div", records, cls="records") + "".join([*shared, *calls])

    def _record(self, name: str, row: Row) -> str:
        place = self._places.get(row)
        links, anchors = [], []
        shared = tuple(measured_facts(row))
        anchors.append(self._shared.setdefault(shared, f"measured-{len(self._shared) + 1}"))
        links.append(tag("a", "model, data and code", href=f"#{anchors[0]}"))
        if row.manifest and place is not None:
            anchor = f"call-{len(self._calls) + 1}"
            anchors.append(self._calls.setdefault((place.parent, row.manifest), (anchor, row))[0])
            links.append(tag("a", f"call {words(row.manifest)}", href=f"#{anchors[1]}"))
        head = tag("span", words(label_of(row)), cls="name") + tag("span", words(value_of(row)), cls="value")
        inner = _list([*row_facts(row), ("Row", name, True)])
        inner += tag("p", f"Measured with {' by '.join(links)}.", cls="links")
        if place is not None:
            word = f"{place_word(self._names[place])}#{name}"
            inner += _command(f"lsgm reproduce {shlex.quote(word)}")
        return tag(
            "details",
            tag("summary", head) + tag("div", inner),
            cls="record",
            id=f"row-{name}",
            data_with=" ".join(anchors),
        )


def _call(folder: Path, row: Row) -> str:
    """Return what is known of the call that measured a row; a damaged manifest takes no number away."""
    try:
        manifest = manifest_of(row, folder)
    except DataError as error:
        return tag("p", words(str(error)))
    if manifest is None:
        return tag("p", f"Its file {tag('code', words(f'manifests/{row.manifest}.json'))} is gone.")
    return _list(call_facts(manifest))


def _list(facts: Facts) -> str:
    """Return names and values as a list of definitions."""
    pairs = (
        tag("div", tag("dt", words(name)) + tag("dd", tag("code", exact(value)) if code else words(value)))
        for name, value, code in facts
    )
    return tag("dl", "".join(pairs))


def _command(line: str) -> str:
    return tag("div", tag("code", exact(line)), cls="command")
