"""A torch.export file is a feature space; nothing in it but a network of plain tensors is ever opened."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsgm.errors import DataError, UserError
from lsgm_eval.features.extractor import load_extractor

SHAPE = (3, 16, 16)
N = torch.export.Dim("n")


class Net(nn.Module):
    """Parameters, buffers, a constant, and an operator that takes text."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
        self.shift = torch.full((1, 3, 1, 1), 0.5)

    def forward(self, x: Tensor) -> Tensor:
        small = nn.functional.interpolate(x.float() / 255 - self.shift, size=(12, 12), mode="bilinear")
        return self.norm(self.conv(small)).relu().mean((2, 3))


def pictures(count: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randint(
        0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(count)
    )


def exported(path: Path, net: nn.Module | None = None, count: int = 4, **dynamic: Any) -> Path:
    net = (net or Net()).eval()
    torch.export.save(torch.export.export(net, (pictures(count),), **dynamic), path)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("net") / "mine.pt2", dynamic_shapes=({0: N},))


def test_its_features_are_those_of_the_network_and_its_hash_that_of_the_file(saved: Path) -> None:
    extractor, net = load_extractor(f"export:{saved}", SHAPE), Net().eval()
    assert (extractor.name, extractor.dim, extractor.resize) == ("mine", 5, "")
    assert extractor.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    for count in (1, 2, 9):
        found = extractor(pictures(count))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, net(pictures(count)).detach(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "sizes",
    [{}, {"dynamic_shapes": ({0: torch.export.Dim("n", min=3, max=5)},)}],
    ids=["of four", "of three to five"],
)
@pytest.mark.parametrize("count", [1, 4, 6, 11])
def test_a_network_for_some_number_of_images_takes_any(
    sizes: dict[str, Any], count: int, tmp_path: Path
) -> None:
    extractor = load_extractor(f"export:{exported(tmp_path / 'fixed.pt2', **sizes)}", SHAPE)
    torch.testing.assert_close(extractor(pictures(count)), Net().eval()(pictures(count)).detach())


def test_images_of_another_size_are_refused_by_both_sizes_unless_any_will_do(
    saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="exported for images of 3x16x16 and the images are 3x20x16: export"):
        load_extractor(f"export:{saved}", (3, 20, 16))
    sides = {0: N, 2: torch.export.Dim("h", min=13, max=99), 3: torch.export.Dim("w", min=13, max=99)}
    free = exported(tmp_path / "free.pt2", dynamic_shapes=(sides,))
    assert load_extractor(f"export:{free}", (3, 20, 14))(pictures(2, (3, 20, 14))).shape == (2, 5)


def test_a_network_of_floats_or_of_two_tensors_is_refused(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    for name, inputs in (("floats", (torch.zeros(2, 3, 16, 16),)), ("two", (pictures(2), pictures(2)))):
        net = nn.Flatten() if name == "floats" else Sum()
        torch.export.save(torch.export.export(net, inputs), tmp_path / f"{name}.pt2")
        with pytest.raises(UserError, match=f"{name}.pt2 must take one tensor of images, uint8"):
            load_extractor(f"export:{tmp_path / name}.pt2", SHAPE)
    flat = exported(tmp_path / "flat.pt2", nn.Flatten(0))
    with pytest.raises(UserError, match="the exported extractor flat must return features N x D"):
        load_extractor(f"export:{flat}", SHAPE)


def changed(source: Path, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Write an archive like ``source`` after ``change`` of its members by their names."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as out:
        for name, content in members.items():
            out.writestr(name, content)
    return path


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def graph(members: dict[str, bytes], change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(members["mine/models/model.json"])
    change(content)
    members["mine/models/model.json"] = json.dumps(content).encode()


def as_text(members: dict[str, bytes], old: str, new: str) -> None:
    text = members["mine/models/model.json"].decode()
    assert old in text
    members["mine/models/model.json"] = text.replace(old, new).encode()


def pickled_weights(members: dict[str, bytes], canary: Path, place: str) -> None:
    kind, file = place.split("/")
    table = f"mine/data/{kind}/model_{kind}_config.json"
    content = json.loads(members[table])
    entry = next(iter(content["config"].values()))
    entry |= {"use_pickle": True, "path_name": file}
    members[table] = json.dumps(content).encode()
    raw = io.BytesIO()
    torch.save(Canary(canary), raw)
    members[f"mine/data/{place}"] = pickle.dumps(Canary(canary)) if "opaque" in file else raw.getvalue()


def call(canary: Path) -> str:
    return f"__import__('pathlib').Path('{canary}').touch()"


def mentions_a_module(content: dict[str, Any], folder: Path) -> None:
    tree = json.loads(content["graph_module"]["module_call_graph"][0]["signature"]["in_spec"])
    context = json.dumps([{"__enum__": True, "fqn": "canary_module:A", "name": "B"}])
    tree[1]["children_spec"][1]["context"] = context
    content["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(tree)


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes], Path], None], str]] = {
    "weights": (lambda m, c: pickled_weights(m, c, "weights/weight_0"), "as a pickled object"),
    "constants": (lambda m, c: pickled_weights(m, c, "constants/tensor_0"), "as a pickled object"),
    "opaque": (lambda m, c: pickled_weights(m, c, "constants/opaque_obj_0"), "as a pickled object"),
    "script": (lambda m, c: pickled_weights(m, c, "constants/custom_obj_0"), "as a pickled object"),
    "sizes": (
        lambda m, c: graph(m, lambda g: _first_size(g).update(expr_str=call(c))),
        "has a size '__import__",
    ),
    "tower": (
        lambda m, c: graph(m, lambda g: _first_size(g).update(expr_str="9**9**9**9")),
        "has a size '9",
    ),
    "names": (lambda m, c: as_text(m, '"x"', json.dumps(f"x={call(c)}")), "has "),
    "operators": (lambda m, c: as_text(m, "aten.relu.default", "aten.from_file.default"), "an operator"),
    "scripted": (lambda m, c: as_text(m, "aten.relu.default", "aten.save.default"), "an operator"),
    "python": (lambda m, c: as_text(m, "torch.ops.aten.relu.default", "torch.load"), "an operator"),
    "modules": (lambda m, c: graph(m, lambda g: mentions_a_module(g, c.parent)), "arguments in"),
    "compiled": (lambda m, c: m.update({"mine/data/aotinductor/model/x.so": b""}), "holds compiled code"),
}


def _first_size(content: dict[str, Any]) -> dict[str, Any]:
    values = content["graph_module"]["graph"]["tensor_values"].values()
    sizes = [size for value in values for size in value["sizes"] if "as_expr" in size]
    found: dict[str, Any] = sizes[0]["as_expr"]
    return found


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_in_a_sentence_and_nothing_of_it_runs(
    kind: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "canary_module.py").write_text(f"open({str(canary)!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    change, said = HOSTILE[kind]
    path = changed(saved, tmp_path / "hostile.pt2", lambda members: change(members, canary))
    with pytest.raises(DataError, match=said) as error:
        load_extractor(f"export:{path}", SHAPE)
    assert not canary.exists()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_example_inputs_and_conditions_in_python_are_left_out(saved: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    def change(members: dict[str, bytes]) -> None:
        raw = io.BytesIO()
        torch.save(Canary(canary), raw)
        members["mine/data/sample_inputs/model.pt"] = raw.getvalue()
        graph(members, lambda g: g.update(guards_code=[call(canary)]))
        graph(members, lambda g: g["graph_module"]["graph"]["nodes"][0]["metadata"].update(
            source_fn_stack=call(canary)
        ))  # fmt: skip

    path = changed(saved, tmp_path / "inputs.pt2", change)
    torch.testing.assert_close(
        load_extractor(f"export:{path}", SHAPE)(pictures(3)), Net().eval()(pictures(3)).detach()
    )
    assert not canary.exists()


def test_damage_is_one_sentence_that_names_the_file(saved: Path, tmp_path: Path) -> None:
    raw, draw = saved.read_bytes(), random.Random(0)
    damaged = [raw[: len(raw) * k // 10] for k in range(10)] + [b"<html>", os.urandom(500)]
    for _ in range(20):
        flipped = bytearray(raw)
        for _ in range(40):
            flipped[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        damaged.append(bytes(flipped))
    path = tmp_path / "bad.pt2"
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.pt2") as error:
            load_extractor(f"export:{path}", SHAPE)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ('"conv.weight"', '"conv.weights"'),
        ('"as_tensor"', '"as_tensors"'),
        ("aten.relu.default", "aten.conv2d.default"),
        ('"graph_module"', '"graph"'),
        ('"as_expr"', '"as_none"'),
    ],
)
def test_words_of_the_right_form_in_the_wrong_place_are_one_sentence(
    word: str, other: str, saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = changed(saved, tmp_path / "bad.pt2", lambda members: as_text(members, word, other))
    with pytest.raises(UserError, match="bad") as error:
        load_extractor(f"export:{path}", SHAPE)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_the_page_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[3] / "docs" / "sample-quality.md"
    (snippet,) = re.findall(r"```python\n(import torch\n.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(snippet, made)
    images = pictures(3, (3, 32, 32))
    found = load_extractor("export:mine.pt2", (3, 32, 32))(images)
    torch.testing.assert_close(found, made["net"](images.float() / 127.5 - 1).detach())


def test_other_kinds_of_file_say_what_to_do(tmp_path: Path) -> None:
    state = tmp_path / "state.pt2"
    torch.save(Net().state_dict(), state)
    with pytest.raises(DataError, match=r"holds no exported network: write it with torch\.export\.save"):
        load_extractor(f"export:{state}", SHAPE)
    old = tmp_path / "old.pt2"
    with zipfile.ZipFile(old, "w") as out:
        out.writestr("version", "8.1")
        out.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(DataError, match=r"written by a torch before 2\.8"):
        load_extractor(f"export:{old}", SHAPE)
    with pytest.raises(DataError, match=r"nowhere\.pt2 is not here; looked for .*features/nowhere\.pt2"):
        load_extractor("export:nowhere.pt2", SHAPE)
