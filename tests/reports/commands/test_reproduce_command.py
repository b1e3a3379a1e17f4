"""`lsgm reproduce` on a tiny trained model: the same number to the last bit, or what is said of another."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import folder_of_images, toml

from lsgm.cli import main
from lsgm.errors import ConfigError, DataError, UserError
from lsgm.results.files import read_rows
from lsgm.results.row import Row, row_from, row_id
from lsgm_reports.commands.reproduce import run

TASK = """
name = "bars"
version = 1
summary = "bars"
dataset = "./images"
spaces = []
[tiers.smoke]
n_samples = 0
nelbo_images = 4
ode_images = 2
ode = { method = "ode", rtol = 1e-2, atol = 1e-2 }
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model, a task, and what `lsgm eval` measured, all in one working directory."""
    home = tmp_path_factory.mktemp("world")
    folder_of_images(home / "images", 120)
    toml(home / "tiny.toml", {"data": {"dataset": "./images", "image_size": 8}})
    (home / "bars.toml").write_text(TASK)
    patch = pytest.MonkeyPatch()
    patch.chdir(home)
    patch.setenv("LSGM_CACHE", str(home / "cache"))
    patch.setenv("LSGM_PROGRESS", "0")
    assert main(["train", "./tiny.toml", "--out", "runs/tiny"]) == 0
    words = ["--model", "runs/tiny", "--model", "again=runs/tiny", "--tier", "smoke"]
    assert main(["eval", "bars.toml", *words, "--out", "out", "--device", "cpu"]) == 0
    patch.undo()
    return home


@pytest.fixture(autouse=True)
def inside(world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setenv("LSGM_CACHE", str(world / "cache"))
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))


def row_of(metric: str, model: str = "tiny") -> Row:
    return next(
        row for row in read_rows(Path("out/results.jsonl")) if (row.model, row.metric) == (model, metric)
    )


@pytest.mark.parametrize(
    ("metric", "model", "only"),
    [
        ("nelbo_nats", "tiny", "nelbo"),
        ("ode_nll_bpd", "again", "ode"),
        ("paired_nelbo_nats", "tiny - again", "nelbo"),
    ],
)
def test_a_number_comes_out_the_same_to_the_last_bit(
    metric: str, model: str, only: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = f"out#{row_id(row_of(metric, model))}"
    assert run([place, "--run", "--out", str(tmp_path / "new")]) == 0
    said = capfd.readouterr().out
    assert f"--only {only} " in said
    assert "equal to the last bit" in said
    assert "code that measured" not in said
    measured = {row.model for row in read_rows(tmp_path / "new" / "results.jsonl")}
    assert measured == ({model} if " - " not in model else {"tiny", "again", model})


def test_a_number_comes_out_the_same_amid_modules_that_lie_in_wait(world: Path, tmp_path: Path) -> None:
    received, home = tmp_path / "received", tmp_path / "home"
    received.mkdir()
    home.mkdir()
    mark = tmp_path / "mark"
    for name in (
        "torch",
        "numpy",
        "scipy",
        "PIL",
        "tqdm",
        "matplotlib",
        "lsgm_eval",
        "lsgm",
        "sitecustomize",
    ):
        (received / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
    offers = received / "evil-1.0.dist-info"
    offers.mkdir()
    (offers / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (offers / "entry_points.txt").write_text("[lsgm.commands]\neval = scipy\n")
    for name in ("bars.toml", "images"):
        (received / name).symlink_to(world / name)
    row = row_of("nelbo_nats")
    assert row.manifest is not None
    content = json.loads((world / f"out/manifests/{row.manifest}.json").read_text())
    (received / "manifests").mkdir()
    (received / f"manifests/{row.manifest}.json").write_text(
        json.dumps(content | {"directory": str(received)})
    )
    (received / "results.jsonl").write_text((world / "out/results.jsonl").read_text())
    before = sorted(received.rglob("*"))
    # Python begun like this looks for modules in the working directory, whichever it is by then.
    code = "import sys; assert sys.path[0] == ''; from lsgm.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["reproduce", f"{received}#{row_id(row)}", "--run", "--out", "new"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=home, capture_output=True, text=True,
        env=os.environ | {"LSGM_CACHE": "cache"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("equal to the last bit\n")
    assert not mark.exists()
    assert sorted(received.rglob("*")) == before
    assert {path.name for path in home.iterdir()} <= {"new", "cache"}


def test_the_command_is_printed_with_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["out", "--model", "tiny", "--metric", "nelbo_nats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    name = row_id(row_of("nelbo_nats"))
    assert lines[0].startswith(f"row {name}: nelbo_nats of tiny = {row_of('nelbo_nats').value!r} (")
    assert [line.split()[1] for line in lines[2:7]] == ["code", "versions", "weights", "data", "hardware"]
    assert [line.split()[0] for line in lines[3:7]] == ["ok", "ok", "ok", "ok"]
    assert lines[-2] == (
        "lsgm eval bars.toml --tier smoke --only nelbo --model runs/tiny --device cpu "
        f"--out results/reproduced-{name}"
    )
    assert not Path("results").exists()


def test_what_is_printed_is_what_a_shell_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["out", "--model", "tiny", "--metric", "nelbo_nats", "--out", str(tmp_path / "new")]) == 0
    first, *words = shlex.split(capsys.readouterr().out.splitlines()[-2])
    assert first == "lsgm"
    assert main(words) == 0
    (new,) = [row for row in read_rows(tmp_path / "new" / "results.jsonl") if row.metric == "nelbo_nats"]
    assert new.value == row_of("nelbo_nats").value


def changed(tmp_path: Path, **changes: object) -> str:
    """Return the place of a result folder whose NELBO says something else."""
    lines = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    row = next(line for line in lines if (line["model"], line["metric"]) == ("tiny", "nelbo_nats")) | changes
    folder = tmp_path / "claims"
    folder.mkdir()
    (folder / "manifests").symlink_to(Path("out/manifests").resolve())
    (folder / "results.jsonl").write_text(json.dumps(row) + "\n")
    return f"{folder}#{row_id(row_from(row))}"


@pytest.mark.parametrize(
    ("shift", "half", "status", "words"),
    [
        (1e-3, 1.0, 0, "inside the recorded 95 % interval"),
        (1.0, 0.4, 1, "outside the recorded 95 % interval"),
    ],
)
def test_the_exit_status_says_whether_it_lies_in_the_interval(
    shift: float, half: float, status: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = row_of("nelbo_nats").value
    assert value is not None
    value += shift * abs(value)
    place = changed(
        tmp_path, value=value, ci_low=value - half * abs(value), ci_high=value + half * abs(value)
    )
    assert run([place, "--run", "--out", str(tmp_path / "new")]) == status
    assert words in capsys.readouterr().out


def test_of_a_row_without_a_manifest_its_keys_are_told_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = changed(tmp_path, manifest=None)
    assert run([place]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:-1])
    assert (told["task"], told["model"], told["metric"]) == ("bars@1/smoke", "tiny", "nelbo_nats")
    assert "manifest" not in told
    with pytest.raises(UserError, match="the row names no manifest: no more is known"):
        run([place, "--run"])


def test_several_rows_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    flow = row_of("ode_nll_nats").sampler
    assert flow is not None
    with pytest.raises(UserError, match=r"\d+ rows fit; name one by PLACE#ID"):
        run(["out", "--model", "tiny", "--sampler", flow])
    listed = capsys.readouterr().out.splitlines()
    assert f"out#{row_id(row_of('ode_nll_nats'))}" in [line.split()[0] for line in listed]
    assert all(line.split()[1] == "tiny" and flow in line for line in listed)


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    with pytest.raises(ConfigError, match="is not empty; choose a fresh folder with --out"):
        run(["out", "--model", "tiny", "--metric", "nelbo_nats", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("argv", "error", "said"),
    [
        ([], ConfigError, "ROW is missing"),
        (["absent#12"], DataError, "absent"),
        (["out", "--device", "CPU 1"], ConfigError, "--device is 'CPU 1'; give a device"),
        (["out#ffff00000000"], DataError, "has no row with id ffff00000000"),
        (["runs/tiny", "--metric", "fid"], ConfigError, "is a training run and holds no rows"),
    ],
)
def test_mistakes_are_said_in_one_sentence(argv: list[str], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        run(argv)


def test_a_training_run_is_trained_again_to_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["runs/tiny"]) == 0
    assert "\nlsgm train runs/tiny/config.toml --out runs/reproduced-tiny\n" in capsys.readouterr().out
    assert run(["runs/tiny", "--run", "--out", str(tmp_path / "new")]) == 0
    assert "equal to the last bit: step-0000012 has weights of sha256" in capsys.readouterr().out


def test_a_run_that_was_begun_from_another_one_is_begun_from_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shorter = ["--stage1.steps", "0", "--stage2.steps", "2", "--init-vae-from", "runs/tiny"]
    assert main(["train", "./tiny.toml", "--out", str(tmp_path / "more"), *shorter]) == 0
    beside = tmp_path / "new.toml"
    beside.write_text("mine")
    assert run([str(tmp_path / "more"), "--run", "--out", str(tmp_path / "new")]) == 0
    assert beside.read_text() == "mine"
    said = capsys.readouterr().out
    assert f"\nlsgm train {tmp_path}/more/config.toml --out {tmp_path}/new\n" in said
    assert "equal to the last bit" in said


def test_a_run_whose_origin_is_gone_is_not_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text(Path("runs/tiny/manifest.json").read_text())
    config = Path("runs/tiny/config.toml").read_text()
    (tmp_path / "config.toml").write_text(f'init_vae_from = "runs/gone"\n{config}')
    with pytest.raises(
        UserError, match="cannot run it: it was begun from runs/gone, which holds no checkpoint"
    ):
        run([str(tmp_path), "--run", "--out", str(tmp_path / "new")])
    assert not (tmp_path / "new.toml").exists()


def test_threads_are_set_as_they_were(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads + 1))
    for place in ("runs/tiny", f"out#{row_id(row_of('nelbo_nats'))}"):
        assert run([place]) == 0
        assert f"\nOMP_NUM_THREADS={threads} lsgm " in capsys.readouterr().out


def test_other_weights_are_said_to_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    (copy / "checkpoints").mkdir(parents=True)
    (copy / "manifest.json").write_text(Path("runs/tiny/manifest.json").read_text())
    config = Path("runs/tiny/config.toml").read_text()
    (copy / "config.toml").write_text(config.replace("seed = 3", "seed = 4"))
    (copy / "checkpoints" / "step-0000012").symlink_to(Path("runs/tiny/checkpoints/step-0000012").resolve())
    assert run([str(copy), "--run", "--out", str(tmp_path / "new")]) == 1
    assert "the weights of step-0000012 differ" in capsys.readouterr().out


def test_help_is_quick_and_printing_a_command_needs_no_torch(world: Path) -> None:
    code = (
        "import sys\nfrom lsgm_reports.commands.reproduce import run\n"
        "try:\n    run(['--help'])\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'pandas'} & set(sys.modules), sorted(sys.modules)\n"
        f"run(['out#{row_id(row_of('nelbo_nats'))}'])\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, cwd=world
    )
    assert done.returncode == 0, done.stderr
    assert "lsgm reproduce runs/eval-glyphs#" in done.stdout
