"""What the Hub reads of a card, read back by its own library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lsgm.errors import CheckpointError
from lsgm.runs.checkpoint import read_state, read_weights
from lsgm.runs.export import write_card, write_folder
from lsgm.runs.hub_card import front_matter, is_ours, render_config

SHIPPED = Path(__file__).parents[3] / "checkpoints"

ROW: dict[str, Any] = {
    "task": "glyphs@2/quick",
    "model": "glyphs-lsgm",
    "dataset": "glyphs@1@ab",
    "metric": "frechet_glyphs",
    "value": 1e-05,
    "ci_low": 0.0,
    "ci_high": 2e-05,
    "n": 500,
    "split": "train",
    "sampler": "heun(steps=10)",
    "unit": "distance",
    "group": "quality",
}


def test_the_library_of_the_hub_reads_what_is_written() -> None:
    repocard = pytest.importorskip("huggingface_hub.repocard", reason="huggingface_hub is not installed")
    state = read_state(SHIPPED / "glyphs-lsgm")
    state["exported"]["license"] = "apache-2.0"
    bound = {
        **ROW,
        "metric": "nelbo_nats",
        "unit": "nats/image",
        "value": 80.5,
        "split": "test",
        "group": "likelihood",
    }
    rows = [ROW, bound, {**ROW, "group": "cost"}, {**ROW, "value": None}]
    data = repocard.ModelCard(front_matter(state, rows) + "# x\n").data
    assert (data.license, data.library_name) == ("apache-2.0", "lsgm-bench")
    assert data.pipeline_tag == "unconditional-image-generation"
    assert data.datasets == ["glyphs"]
    assert set(data.tags) >= {"lsgm", "vae", "diffusion", "arxiv:2106.05931"}
    assert data.model_name == "glyphs-lsgm"
    found = {result.metric_type: result for result in data.eval_results}
    assert set(found) == {"frechet_glyphs", "nelbo_nats"}
    assert found["frechet_glyphs"].metric_value == 1e-05
    assert found["frechet_glyphs"].dataset_split == "train"
    assert found["frechet_glyphs"].metric_args["n"] == 500
    assert (found["nelbo_nats"].metric_name, found["nelbo_nats"].metric_value) == ("NELBO (nats)", 80.5)


def test_a_strangers_words_do_not_leave_their_line() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    state = read_state(SHIPPED / "glyphs-vae")
    words = ["no", "1.5", "a: b", "x\n---\ny", '"', "# c", "- d", "é\x85", "{}", "", "@e", "~", "<b>[`&"]
    rows = [{**ROW, "sampler": word, "metric": f"m{n}"} for n, word in enumerate(words)]
    text = front_matter(state, rows)
    assert text.count("\n---\n") == 1
    assert "<b>" not in text
    (model,) = yaml.safe_load(text.removeprefix("---\n").partition("\n---\n")[0])["model-index"]
    said = [metric["args"].get("sampler", "") for metric in model["results"][0]["metrics"]]
    assert said == [word.replace("\n", "\\n").replace("\x85", "\\x85") for word in words]


def test_a_known_data_set_has_its_name_there() -> None:
    state = read_state(SHIPPED / "cifar10-small" / "lsgm")
    assert "\ndatasets:\n  - uoft-cs/cifar10\n" in front_matter(state)
    assert "license" not in front_matter(state)
    assert json.loads(render_config(state))["model_type"] == "lsgm"


def test_an_earlier_folder_gets_todays_card_and_nobody_elses_is_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_folder(folder, read_state(SHIPPED / "glyphs-vae"), read_weights(SHIPPED / "glyphs-vae"))
    card = folder / "README.md"
    assert is_ours(card.read_text())
    (folder / "MODEL_CARD.md").write_text("of an earlier version")
    assert write_card(folder) == card
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "config.json", "state.json", "model.safetensors"),
    }
    card.write_text("# My notes\n")
    with pytest.raises(CheckpointError, match="is not a card that `lsgm export` wrote; move it away first"):
        write_card(folder)
    assert card.read_text() == "# My notes\n"
