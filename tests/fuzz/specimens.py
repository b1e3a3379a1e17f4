"""The valid files that inputs are made from: tiny ones, written by the commands themselves."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MODEL", "PARTS", "TASK", "make_world"]

MODEL = "run/checkpoints/step-0000004"
STAGE = {"steps": 2, "val_every": 1, "log_every": 1, "batch_size": 4}
TASK = """
name = "bars"
version = 1
summary = "dark bars on light paper"
dataset = "image-folder"
spaces = [{ extractor = "torchscript:means.ts", name = "means" }]
reference_split = "train"
note = "tiny"
[tiers.quick]
n_samples = 40
nelbo_images = 4
ode_images = 2
iw_images = 2
iw_flow_images = 2
reference_images = 40
curve_samples = 40
sampler = { name = "heun", steps = 2 }
curve = [{ name = "heun", steps = 1 }, { name = "ddim", steps = 2 }]
nelbo = { draws = 2 }
ode = { method = "ode", solver = "heun", steps = 2 }
iw_flow = { method = "iw", samples = 2, solver = "heun", steps = 1 }
"""
PLAIN = """
name = "plain"
version = 1
summary = "likelihoods alone, without a feature space"
dataset = "image-folder"
[tiers.quick]
n_samples = 0
nelbo_images = 4
ode_images = 2
nelbo = { draws = 2 }
ode = { method = "ode", solver = "heun", steps = 2 }
"""
EVAL = ("eval", "task.toml", "--model", "run", "--data", "images", "--device", "cpu", "--report", "no")
NLL = ("nll", "run", "--task", "plain.toml", "--data", "images", "--device", "cpu")

PARTS: dict[str, Callable[[Path], None]] = {}
"""Name of a file or folder -> what writes it, the working directory being the world's."""
NEEDS: dict[str, tuple[str, ...]] = {}


def part(name: str, *needs: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Offer what writes the part ``name``, which needs others."""

    def offer(make: Callable[[Path], None]) -> Callable[[Path], None]:
        PARTS[name], NEEDS[name] = make, needs
        return make

    return offer


def make_world(folder: Path, wanted: Iterable[str]) -> dict[str, Path]:
    """Write the parts and what they need, below ``folder``; return where each lies.

    The working directory and LSGM_CACHE are the caller's to set.
    """
    done: dict[str, Path] = {}

    def make(name: str) -> None:
        if name in done:
            return
        for other in NEEDS[name]:
            make(other)
        done[name] = folder / name
        if not done[name].exists():
            PARTS[name](done[name])

    for name in wanted:
        make(name)
    return done


def _main(*words: object) -> None:
    from lsgm.cli import _dispatch

    status = _dispatch([str(word) for word in words])
    if status != 0:
        raise RuntimeError(f"lsgm {' '.join(map(str, words))} ended with {status}")


def pictures(count: int, seed: int) -> Any:
    """Return grey pictures uint8 [N, 8, 8]."""
    import tiny

    return tiny._pictures(count, seed).numpy()[:, 0]


@part("images")
def _images(path: Path) -> None:
    from PIL import Image

    for split, count, seed in (("train", 44, 1), ("val", 4, 2), ("test", 8, 3)):
        (path / split).mkdir(parents=True)
        for index, picture in enumerate(pictures(count, seed)):
            Image.fromarray(picture).save(path / split / f"{index:03d}.png")


@part("few", "images")
def _few(path: Path) -> None:
    shutil.copytree("images/test", path)


@part("formats")
def _formats(path: Path) -> None:
    from PIL import Image

    path.mkdir()
    for index, picture in enumerate(pictures(6, 5)):
        kind = ("tiff", "gif", "webp", "png", "bmp", "pgm")[index]
        image = Image.fromarray(picture)
        image.save(path / f"{index}.{kind}", **({"lossless": True} if kind == "webp" else {}))


@part("images.zip", "images")
def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(Path("images").rglob("*.png")):
            archive.write(file, file.relative_to("images"))


@part("images.npz")
def _npz(path: Path) -> None:
    np.savez(path, arr_0=pictures(48, 6)[..., None])


@part("images.npy")
def _npy(path: Path) -> None:
    np.save(path, pictures(48, 7)[..., None])


@part("recipe.toml")
def _recipe(path: Path) -> None:
    import tiny

    data = {"dataset": "images", "image_size": 8}
    tiny.toml(path, {"stage1": STAGE, "stage2": STAGE, "data": data})


@part("task.toml")
def _task(path: Path) -> None:
    path.write_text(TASK)


@part("plain.toml")
def _plain(path: Path) -> None:
    path.write_text(PLAIN)


@part("means.ts")
def _means(path: Path) -> None:
    import torch

    class Means(torch.nn.Module):
        """Four means of an image."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Return features [N, 4] of images uint8 [N, C, H, W]."""
            return torch.nn.functional.adaptive_avg_pool2d(x.float() / 255, 2).mean(1).flatten(1)

    torch.jit.script(Means()).save(str(path))


@part("net.pt2")
def _exported_network(path: Path) -> None:
    import torch

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)).eval()

    class Net(torch.nn.Module):
        """A network of bytes."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Return features [N, 4]."""
            return self.net(x.float())

    count = torch.export.Dim("n", min=1, max=4096)
    inputs = (torch.zeros(4, 1, 8, 8, dtype=torch.uint8),)
    torch.export.save(torch.export.export(Net().eval(), inputs, dynamic_shapes=({0: count},)), path)


@part("run", "images", "recipe.toml")
def _run(path: Path) -> None:
    _main("train", "recipe.toml", "--out", path.name, "--device", "cpu")


@part("half", "images", "recipe.toml")
def _half(path: Path) -> None:
    """A run that stopped in its second stage, and goes on."""
    _main("train", "recipe.toml", "--out", path.name, "--device", "cpu", "--stage2.steps", "1")


@part("exported", "run")
def _exported(path: Path) -> None:
    _main("export", "run", path.name)


@part("results", "run", "task.toml", "means.ts")
def _results(path: Path) -> None:
    _main(*EVAL, "--out", path.name)


@part("cache", "results")
def _cache(path: Path) -> None:
    import os

    shutil.copytree(os.environ["LSGM_CACHE"], path)


@part("scores", "run", "plain.toml")
def _scores(path: Path) -> None:
    _main(*NLL, "--method", "nelbo", "--method", "ode", "--out", path.name)


@part("curve", "run", "task.toml", "means.ts")
def _curve(path: Path) -> None:
    words = [
        "nfe",
        "--model",
        "run",
        "--task",
        "task.toml",
        "--data",
        "images",
        "--samplers",
        "heun",
        "--nfe",
        "2,4",
    ]
    _main(*words, "--tol", "none", "--images", 40, "--device", "cpu", "--report", "no", "--out", path.name)


@part("sheet", "results")
def _sheet(path: Path) -> None:
    _main("report", "results", "--out", path.name)


@part("golden.json", "run", "task.toml", "means.ts")
def _golden(path: Path) -> None:
    from lsgm.config import SamplerConfig
    from lsgm_eval.gate.golden import Plan, write_golden
    from lsgm_eval.gate.measure import open_subject
    from lsgm_eval.gate.record import record

    heun = SamplerConfig("heun", steps=1)
    plan = Plan(
        replay_images=4,
        flow_images=2,
        flow_steps=1,
        drawn=2,
        sampler=heun,
        images=4,
        draws=1,
        samples=0,
        repeats=3,
    )
    subject, described = open_subject("run", "task.toml", plan, data="images", device="cpu")
    write_golden(path, record(subject, described, "first", None))


@part("drawn", "run")
def _drawn(path: Path) -> None:
    words = ["--out", path / "pictures", "--device", "cpu", "--sampler.name", "heun", "--sampler.steps", 1]
    _main("sample", "run", "--n", 4, *words)


@part("pack", "run")
def _pack(path: Path) -> None:
    words = ["--out", path / "drawn.npz", "--device", "cpu", "--sampler.name", "heun", "--sampler.steps", 1]
    _main("sample", "run", "--n", 4, *words)


@part("statistics.npz")
def _statistics(path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(50, 4))
    np.savez(path, mu=rows.mean(0), sigma=np.cov(rows.T))


@part("costs.json", "run")
def _costs(path: Path) -> None:
    from lsgm import recipes

    whole = json.loads((Path(recipes.__file__).parent / "costs.json").read_text())
    path.write_text(json.dumps({name: whole[name] for name in list(whole)[:2]}))


@part("published.toml")
def _published(path: Path) -> None:
    import lsgm_reports

    shutil.copyfile(Path(lsgm_reports.__file__).with_name(path.name), path)


@part("calibration.toml")
def _calibration(path: Path) -> None:
    import lsgm_reports

    shutil.copyfile(Path(lsgm_reports.__file__).with_name(path.name), path)


@part("ablation", "scores")
def _ablation(path: Path) -> None:
    from lsgm.recipes.ablation import STUDIES, summary

    shutil.copytree("scores", path)
    (path / "ablation.json").write_text(json.dumps(summary("tiny", [STUDIES["frozen"]], {}), indent=1))
