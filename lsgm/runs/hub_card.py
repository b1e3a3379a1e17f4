"""What the Hugging Face Hub reads of an exported checkpoint: the top of README.md, and `config.json`.

Both are views of `state.json` and of result rows; commands read neither. The Hub sorts models by the former's
tags and lists its results; its counts of downloads, parameters and kinds go by the latter and the weights.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lsgm.data.registry import DATASETS
from lsgm.errors import ConfigError
from lsgm.files.names import shown
from lsgm.results.metrics import metric_of
from lsgm.results.row import Row
from lsgm.runs.card import render_card, shown_rows

LIBRARY = "lsgm-bench"
TASK = "unconditional-image-generation"
PAPER = "arxiv:2106.05931"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
_BARE = re.compile(r"[A-Za-z][\w./-]*")
_MARKS = re.compile(r"[<&\[\]`]")
"""What Markdown and HTML would take for more, where a page shows these lines as if they were text."""
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def check_license(name: str) -> str:
    """Return the Hub's identifier of a licence. Raises ConfigError for what cannot be one."""
    if name and not _LICENSE.fullmatch(name):
        raise ConfigError(
            f"--license is '{shown(name)}'; give one of the Hub's identifiers, as apache-2.0 or cc-by-nc-4.0"
        )
    return name


def render_readme(state: Mapping[str, Any], place: str, rows: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return README.md: what the Hub reads of a checkpoint, then its model card (`lsgm.runs.card`)."""
    return front_matter(state, rows) + render_card(state, place, rows)


def is_ours(readme: str) -> bool:
    """Return whether a README.md is one of an exported checkpoint."""
    head = readme.partition("\n---\n")[0]
    return head.startswith("---\n") and f"\nlibrary_name: {LIBRARY}\n" in f"{head}\n"


def front_matter(state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the YAML between two lines of dashes with which README.md begins.

    ``license`` is there where `state.json` names one: only who trained a model can say it. ``model-index``
    holds the result rows that the card prints, each with its interval, number of images and sampler.
    """
    dataset = str(state["meta"]["dataset"]).split("@")[0]
    said: dict[str, Any] = {
        "license": state["exported"].get("license") or None,
        "library_name": LIBRARY,
        "pipeline_tag": TASK,
        "tags": _tags(state),
        "datasets": [_hub_name(dataset)] if _BARE.fullmatch(dataset) else None,
        "model-index": _results(state, rows),
    }
    lines = _yaml({key: value for key, value in said.items() if value})
    return "\n".join(["---", *lines, "---", "", ""])


def render_config(state: Mapping[str, Any]) -> bytes:
    """Return `config.json`: what the model is, for the Hub's pages; commands go by `state.json`."""
    meta = state["meta"]
    config = {
        "library_name": LIBRARY,
        "model_type": meta["recipe"]["kind"],
        "name": state["name"],
        "pixels": meta["pixels"],
        "dataset": meta["dataset"],
        "parameters": state["parameters"],
        "dtype": state["exported"]["dtype"],
        "recipe": meta["recipe"],
    }
    return (json.dumps(config, indent=1) + "\n").encode()


def _tags(state: Mapping[str, Any]) -> list[str]:
    parts, kind = state["parameters"], str(state["meta"]["recipe"]["kind"])
    tags = [LIBRARY, kind]
    if "vae" in parts:
        tags.append("vae")
    if state["exported"].get("has_prior"):
        tags += ["diffusion", "score-based-generative-model"]
        tags += [PAPER] if "vae" in parts else []
    return list(dict.fromkeys(tags))


def _hub_name(dataset: str) -> str:
    """Return the dataset's name on the Hub, where the same images are known there, else its own."""
    known = DATASETS.known.get(dataset)  # of other packages nothing is loaded to write a page
    return known.hub if known is not None and known.hub else dataset


def _results(state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    measured: dict[tuple[str, str], list[Any]] = {}
    for row in shown_rows(rows):
        if math.isfinite(row["value"]):
            measured.setdefault((row.get("task") or "", row.get("split") or ""), []).append(row)
    if not measured:
        return []
    results = [
        {
            "task": {"type": TASK, "name": "Unconditional image generation"},
            "dataset": _dataset_of(found[0], task, split),
            "metrics": [_metric(row) for row in found],
        }
        for (task, split), found in measured.items()
    ]
    return [{"name": state["name"], "results": results}]


def _dataset_of(row: Mapping[str, Any], task: str, split: str) -> dict[str, Any]:
    name = str(row.get("dataset") or task).split("@")[0] or "unknown"
    said = {"type": _hub_name(name), "name": name, "split": split}
    return {key: value for key, value in said.items() if value}


def _metric(row: Mapping[str, Any]) -> dict[str, Any]:
    named = metric_of(Row("", "", row["metric"], None, unit=row.get("unit")))
    detail = named.space or named.unit
    said = {
        "task": row.get("task"),
        "unit": row.get("unit"),
        "ci_low": row.get("ci_low"),
        "ci_high": row.get("ci_high"),
        "n": row.get("n"),
        "sampler": row.get("sampler"),
        "git_revision": row.get("git_revision"),
    }
    return {
        "type": row["metric"],
        "name": f"{named.label} ({detail})" if detail else named.label,
        "value": row["value"],
        "args": {key: value for key, value in said.items() if value not in (None, "")},
    }


def _escape(mark: re.Match[str]) -> str:
    return f"\\u{ord(mark[0]):04x}"


def _yaml(value: Any, indent: str = "") -> list[str]:
    """Return a table or a list as lines of YAML, texts that could be read as something else in quotes."""
    lines: list[str] = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, Mapping | list | tuple) and item:
                lines += [f"{indent}{_scalar(key)}:", *_yaml(item, f"{indent}  ")]
            else:
                lines.append(f"{indent}{_scalar(key)}: {_scalar(item)}")
        return lines
    for item in value:
        if isinstance(item, Mapping | list | tuple) and item:
            first, *rest = _yaml(item, f"{indent}  ")
            lines += [f"{indent}- {first.lstrip()}", *rest]
        else:
            lines.append(f"{indent}- {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        bare = _BARE.fullmatch(value) and value.isascii() and value.lower() not in _WORDS
        return value if bare else _MARKS.sub(_escape, json.dumps(shown(value), ensure_ascii=False))
    if isinstance(value, float) and "e" in repr(value) and "." not in repr(value):
        return repr(value).replace("e", ".0e")  # 1e-05 is a text to a reader of YAML 1.1
    return json.dumps(value)
