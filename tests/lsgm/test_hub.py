"""Models by name on the Hub, against a stand-in: fetched, checked and kept; pushed, never over others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from hub_server import TOKEN, Hub, serving

import lsgm
from lsgm import cli
from lsgm.commands.push import run as push
from lsgm.errors import CheckpointError, ConfigError
from lsgm.hub import fetch, hub_name
from lsgm.runs.checkpoint import find_checkpoint, read_state, read_weights
from lsgm.runs.export import write_card, write_folder
from lsgm.runs.load import load_model

constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")

SHIPPED = Path(__file__).parents[2] / "checkpoints"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with serving() as running:
        yield running


@pytest.fixture
def hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    server.__dict__.update({**Hub(url=server.url).__dict__})
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    places = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", places)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    forget()
    return server


def forget() -> None:
    """Do as another process would, which asks the Hub anew."""
    fetch.cache_clear()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_exported_today("glyphs-vae", tmp_path_factory.mktemp("exported") / "vae")


def as_exported_today(name: str, out: Path) -> Path:
    write_folder(out, read_state(SHIPPED / name), read_weights(SHIPPED / name))
    return out


def files_of(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cached(tmp_path: Path) -> list[str]:
    return sorted({path.name for path in (tmp_path / "cache").rglob("*") if path.is_symlink()})


def test_a_model_is_opened_by_its_name_and_only_what_it_needs_is_fetched(
    hub: Hub, exported: Path, tmp_path: Path
) -> None:
    hub.holding("me/vae", {**files_of(exported), "video.bin": b"0" * 1000})
    model = lsgm.load("hf://me/vae", device="cpu")
    assert model.generative.sha256 == load_model(exported).sha256
    assert model.name == "glyphs-vae"
    assert cached(tmp_path) == ["model.safetensors", "state.json"]
    before = len(hub.asked)
    lsgm.load(Path("hf://me/vae"), device="cpu")  # a path has lost one of the slashes
    assert len(hub.asked) == before


def test_branches_tags_and_commits_are_revisions(hub: Hub, exported: Path) -> None:
    found = hub.holding("me/glyphs", files_of(SHIPPED / "glyphs-frozen"))
    old = found.refs["main"]
    new = found.commit(files_of(exported), "branches/of-mine")
    assert read_state(find_checkpoint("hf://me/glyphs"))["name"] == "glyphs-frozen"  # in the earlier layout
    assert read_state(find_checkpoint("hf://me/glyphs@branches/of-mine"))["name"] == "glyphs-vae"
    assert find_checkpoint(f"hf://me/glyphs@{new}").name == new
    found.commit(files_of(exported))
    forget()
    assert read_state(find_checkpoint("hf://me/glyphs"))["name"] == "glyphs-vae"
    before = len(hub.asked)
    assert read_state(find_checkpoint(f"hf://me/glyphs@{old}"))["name"] == "glyphs-frozen"
    assert len(hub.asked) == before  # what a commit holds does not change


def test_commands_take_a_name_where_they_take_a_folder(
    hub: Hub, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lsgm_eval.compare.facts import compare_runs
    from lsgm_eval.models import open_model, trained_on
    from lsgm_eval.run.manifest import _described
    from lsgm_eval.two_sides.sides import open_side
    from lsgm_reports.reproduce.weights import Check, locate

    hub.holding("me/vae", files_of(exported))
    monkeypatch.chdir(tmp_path)
    model = open_model("mine=hf://me/vae")
    assert (model.name, model.sha256) == ("mine", load_model(exported).sha256)
    assert trained_on("mine=hf://me/vae") == trained_on(str(exported)) != ""
    assert open_side("hf://me/vae").name == "glyphs-vae"
    assert compare_runs(Path("hf://me/vae"), exported).places[1] == exported
    said = _described("mine=hf://me/vae", model)
    assert (said.spec, said.run_id) == ("mine=hf://me/vae", read_state(exported)["exported"]["run_id"])
    word = f"mine=hf://me/vae@{hub.repositories['me/vae'].refs['main']}"
    assert locate(said, tmp_path, []) == (word, Check("weights", "ok", ANY))
    elsewhere = replace(said, path=str(said.path).replace(str(tmp_path), "/of/somebody/else"))
    assert locate(elsewhere, tmp_path, []) == (word, Check("weights", "unknown", ANY))
    assert cli.main(["sample", "hf://me/vae", "--n", "2", "--out", "drawn", "--device", "cpu"]) == 0
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2


def test_the_python_of_the_page_runs_as_it_stands(hub: Hub) -> None:
    page = (SHIPPED.parent / "docs" / "hub.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    found = hub.holding("me/glyphs-lsgm", {})
    found.commit(files_of(SHIPPED / "glyphs-lsgm"), "v1")
    known: dict[str, Any] = {}
    exec(code, known)
    assert known["model"].name == "glyphs-lsgm"


def test_a_run_may_begin_from_a_name(hub: Hub, exported: Path, tmp_path: Path) -> None:
    from lsgm.train.resume import Origin

    hub.holding("me/vae", files_of(exported))
    origin = Origin("init_from", Path("hf://me/vae"))
    assert (origin.word, hub.asked) == ("hf://me/vae", [])  # a run that goes on needs it no more
    assert origin.as_dict() == {
        "option": "init_from",
        "path": "hf://me/vae",
        "sha256": load_model(exported).sha256,
    }


def test_what_was_fetched_serves_without_a_network(
    hub: Hub, exported: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.holding("me/vae", files_of(exported))
    find_checkpoint("hf://me/vae")
    forget()
    hub.down = True
    assert read_state(find_checkpoint("hf://me/vae"))["name"] == "glyphs-vae"
    assert "the Hub answers 503" in caplog.text
    assert "taken as it was fetched before" in caplog.text
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=r"hf://me/other cannot be asked for, as http://127.0.0.1:9 is"):
        find_checkpoint("hf://me/other")


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("hf://me/absent", "is not there, or is private: check the name, or sign in by `hf auth login`"),
        ("hf://me/secret", "is not there, or is private: check the name, or sign in by `hf auth login`"),
        ("hf://me/gated", "is given to those who accept its terms; accept them at http"),
        ("hf://me/vae@v9", "hf://me/vae has no revision 'v9'; give a branch, a tag or a whole commit"),
        ("hf://me/bert", r"holds no checkpoint of lsgm \(\.gitattributes, pytorch_model.bin\)"),
        ("hf://me/trainer", "is not of an exported checkpoint"),
        ("hf://vae", "'hf:/+vae' names nothing on the Hub; give hf://OWNER/NAME"),
        ("hf://me/v a e", "names nothing on the Hub"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(hub: Hub, exported: Path, word: str, sentence: str) -> None:
    hub.holding("me/vae", files_of(exported))
    hub.holding("me/secret", files_of(exported), private=True)
    hub.holding("me/gated", files_of(exported), gated=True)
    hub.holding("me/bert", {"pytorch_model.bin": b"0"})
    hub.holding("me/trainer", {"state.json": b'{"format": 1}'})
    for named in (word, Path(word)):
        with pytest.raises(CheckpointError, match=sentence):
            find_checkpoint(named)


def test_a_token_opens_what_is_private(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.holding("me/secret", files_of(exported), private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert read_state(find_checkpoint("hf://me/secret"))["name"] == "glyphs-vae"


def test_bytes_of_another_checksum_are_not_kept(hub: Hub, exported: Path, tmp_path: Path) -> None:
    weights = files_of(exported)["model.safetensors"]
    hub.holding("me/vae", files_of(exported))
    hub.sent["model.safetensors"] = weights[:-1] + bytes([weights[-1] ^ 1])
    with pytest.raises(CheckpointError, match=r"model.safetensors has another sha256 than state.json says"):
        find_checkpoint("hf://me/vae")
    assert cached(tmp_path) == ["state.json"]
    hub.sent.clear()
    folder = find_checkpoint("hf://me/vae")
    assert read_weights(folder)
    (folder / "model.safetensors").resolve().write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"is damaged.*; remove .*models--me--vae, and it is fetched"):
        read_weights(folder)


def test_weights_that_are_not_those_of_the_state_are_not_fetched(hub: Hub, exported: Path) -> None:
    files = files_of(exported)
    hub.holding("me/vae", {**files, "model.safetensors": bytes(len(files["model.safetensors"]))})
    with pytest.raises(CheckpointError, match=r"is another than it says in state.json; push the model again"):
        find_checkpoint("hf://me/vae")
    assert not [path for _, path in hub.asked if path.endswith("main/model.safetensors")]


def test_no_more_is_fetched_than_is_read(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.holding("me/vae", files_of(exported))
    for limit, file in (("LSGM_LARGEST_WEIGHTS", "model.safetensors"), ("LSGM_LARGEST_JSON", "state.json")):
        monkeypatch.setenv(limit, "8000" if file == "model.safetensors" else "100")
        hub.asked.clear()
        with pytest.raises(CheckpointError, match=rf"hf://me/vae: {file} has .* set {limit}="):
            find_checkpoint("hf://me/vae")
        assert not [path for method, path in hub.asked if method == "GET" and path.endswith(file)]


def test_a_commit_in_between_is_the_one_that_is_taken(
    hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    found = hub.holding("me/vae", files_of(SHIPPED / "glyphs-frozen"))
    ask = HfApi.model_info

    def then_commit(*words: Any, **options: Any) -> Any:
        info = ask(*words, **options)
        if len(found.commits) == 1:
            found.commit(files_of(exported))
        return info

    monkeypatch.setattr(HfApi, "model_info", then_commit)
    folder = find_checkpoint("hf://me/vae")
    assert folder.name == found.refs["main"]
    assert read_weights(folder)


def test_without_the_extra_a_name_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'lsgm-bench\[hub\]'"):
        find_checkpoint("hf://me/vae")


def test_the_library_of_the_hub_is_imported_only_for_a_name() -> None:
    code = (
        "import sys; import lsgm.hub, lsgm.commands.push; assert lsgm.hub.hub_name('runs/x') is None; "
        "assert 'huggingface_hub' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert str(hub_name(Path("hf://me/vae@v1"))) == "hf://me/vae@v1"


# Up to the Hub


@pytest.fixture
def signed_in(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def sent(*words: object) -> int:
    return push([str(word) for word in words])


def test_a_model_goes_up_and_comes_back_by_its_name(
    signed_in: Hub, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sent(exported, "me/new", "--private") == 0
    found, said = signed_in.repositories["me/new"], capsys.readouterr().out
    assert said.startswith(f"hf://me/new is at commit {found.refs['main'][:12]}: {signed_in.url}/me/new; ")
    assert found.private
    assert set(found.files) - {".gitattributes"} == set(files_of(exported))
    assert found.files["state.json"] == (exported / "state.json").read_bytes()
    card = found.files["README.md"].decode()
    assert "$ lsgm sample hf://me/new --out pictures" in card
    assert "$ lsgm sample vae --out" not in card
    assert load_model("hf://me/new").sha256 == load_model(exported).sha256
    assert sent(exported, "hf://me/new") == 0
    assert "was there already" in capsys.readouterr().out
    assert len(found.commits) == 2


def test_a_folder_of_early_versions_goes_up_under_todays_names(signed_in: Hub, tmp_path: Path) -> None:
    found = signed_in.holding("me/frozen", files_of(SHIPPED / "glyphs-frozen"))
    assert sent(SHIPPED / "glyphs-frozen", "me/frozen") == 0
    assert set(found.files) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "state.json",
        "model.safetensors",
    }
    assert found.files["README.md"].startswith(b"---\nlibrary_name: lsgm-bench\n")
    assert b"\n# glyphs-frozen\n" in found.files["README.md"]
    assert load_model("hf://me/frozen").sha256 == load_model(SHIPPED / "glyphs-frozen").sha256


@pytest.mark.parametrize(
    ("name", "files", "sentence"),
    [
        ("me/vae", "glyphs-frozen", "holds the model 'glyphs-frozen'; give another name, or --replace"),
        ("me/bert", {"model.safetensors": b"0"}, r"holds something else \(model.safetensors\)"),
        ("me/odd", {"state.json": b"[]"}, "holds a state.json of something else"),
        ("others/vae", None, "does not allow it"),
        ("me/vae@v2", {}, "has no revision 'v2'"),
        ("vae", {}, "names nothing on the Hub"),
    ],
)
def test_what_is_there_stays(signed_in: Hub, exported: Path, name: str, files: Any, sentence: str) -> None:
    if files is not None:
        there = files_of(SHIPPED / files) if isinstance(files, str) else files
        before = signed_in.holding(name.partition("@")[0], there)
        held = dict(before.files)
    with pytest.raises(CheckpointError, match=sentence):
        sent(exported, name)
    if files is None:
        assert not signed_in.repositories
        return
    assert before.files == held
    if sentence.startswith("holds"):
        assert sent(exported, name, "--replace") == 0
        assert json.loads(before.files["state.json"])["name"] == "glyphs-vae"
        assert held in before.commits.values()


def test_what_somebody_else_has_just_put_there_stays(
    signed_in: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    found = signed_in.holding("me/vae", {})
    commit = HfApi.create_commit

    def overtaken(*words: Any, **options: Any) -> Any:
        found.commit({"theirs": b"0"})
        return commit(*words, **options)

    monkeypatch.setattr(HfApi, "create_commit", overtaken)
    with pytest.raises(CheckpointError, match=r"has just changed \(412: .*\); look, and try again"):
        sent(exported, "me/vae")
    assert set(found.files) == {"theirs"}


def test_only_what_export_wrote_goes_up(hub: Hub, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"is written by whom the Hub knows; sign in by `hf auth login`"
    ):
        sent(exported, "me/vae")
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "state.json").write_text('{"format": 1}')
    with pytest.raises(CheckpointError, match="was not exported; `lsgm export"):
        sent(tmp_path / "step", "me/vae")
    mine = as_exported_today("glyphs-vae", tmp_path / "mine")
    weights = mine / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="is damaged"):
        sent(mine, "me/vae")
    assert not hub.asked


def test_what_was_added_to_a_card_and_a_licence_go_up(signed_in: Hub, tmp_path: Path) -> None:
    mine = as_exported_today("glyphs-vae", tmp_path / "mine")
    card = write_card(mine, license="cc-by-4.0")
    card.write_text(card.read_text() + "\n## Thanks\n\nTo the letters.\n")
    assert sent(mine, "me/vae") == 0
    text = signed_in.repositories["me/vae"].files["README.md"].decode()
    assert text.startswith("---\nlicense: cc-by-4.0\n")
    assert text.endswith("To the letters.\n")
    with pytest.raises(ConfigError, match="--license is 'My own'; give one of the Hub's identifiers"):
        write_card(mine, license="My own")
