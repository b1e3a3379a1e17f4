"""An exported checkpoint goes up to the Hugging Face Hub: card, config, state, weights, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lsgm import hub
from lsgm.errors import CheckpointError
from lsgm.files.limits import DOCUMENT
from lsgm.files.regular import read_bytes
from lsgm.runs.card import usage_lines
from lsgm.runs.checkpoint import EXPORTED, STATE, WEIGHTS, read_state, read_weights, weights_file
from lsgm.runs.export import CARD, CONFIG, EARLIER_CARD, refuse_incomplete
from lsgm.runs.hub_card import front_matter, is_ours, render_config, render_readme

_USE = re.compile(r"(?<=\n## Use\n\n)```console\n.*?\n```", re.DOTALL)


def push(folder: Path, name: hub.HubName, *, private: bool = False, replace: bool = False) -> hub.Pushed:
    """Put an exported checkpoint into a repository of the Hub, which is made where there is none.

    Its weights are checked before anything is sent. A folder of early versions goes up under today's names.
    Raises CheckpointError for a folder that was not exported or is damaged, and as `lsgm.hub.push` does.
    """
    state = read_state(folder)
    if "exported" not in state:
        raise CheckpointError(f"{folder} was not exported; `lsgm export {folder} OUT`, then push OUT")
    refuse_incomplete(folder, state)
    read_weights(folder)
    own = weights_file(state)
    said = {**state, "files": {EXPORTED: state["files"][own]}}
    document = read_bytes(folder / STATE, DOCUMENT, CheckpointError)
    sha256 = state["files"][own]["sha256"]
    return hub.push(
        name,
        {
            CARD: _card(folder, said, name).encode(),
            CONFIG: render_config(said),
            STATE: document if own == EXPORTED else (json.dumps(said, indent=1) + "\n").encode(),
            EXPORTED: folder / own,
        },
        document=STATE,
        may_replace=lambda there: _other(there, state),
        superseded=(WEIGHTS["ema"], EARLIER_CARD),
        message=f"{state['name']}, step {state['step']}, weights of sha256 {sha256[:12]}",
        private=private,
        replace=replace,
    )


def _card(folder: Path, state: dict[str, Any], name: hub.HubName) -> str:
    """Return the folder's own card, which may have been added to, but for how the model is named in it."""
    for file in (CARD, EARLIER_CARD):
        if (folder / file).is_file():
            text = read_bytes(folder / file, DOCUMENT, CheckpointError).decode(errors="replace")
            break
    else:
        text = render_readme(state, str(name))
    text = text if is_ours(text) else front_matter(state) + text
    return _USE.sub(lambda _: usage_lines(state, str(name)), text, count=1)


def _other(there: Path, state: dict[str, Any]) -> str:
    """Return what a repository holds, in words, where it is not this model."""
    try:
        found = read_state(there)
    except CheckpointError:
        return f"a {STATE} of something else"
    if "exported" not in found:
        return f"a {STATE} of something else"
    return "" if found.get("name") == state["name"] else f"the model '{found.get('name')}'"
