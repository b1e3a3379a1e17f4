"""Every kind of file that a command reads, an entry each: what is mutated, how, and which commands read it.

A word list is a command line that runs in the folder of the input; ``call:NAME`` is a reader of `readers` for
files of the package that no command line names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from hypothesis import strategies as st

from fuzz import arrays, octets, pickles, pictures, tensors, trees, zips
from fuzz.draws import Draws
from fuzz.places import PLACES
from fuzz.sandbox import Case, Edit
from fuzz.specimens import MODEL

__all__ = ["KINDS", "Kind", "cases", "seal_checkpoints"]

Mutation = Callable[[bytes, Draws], bytes]

BY_ENDING: Mapping[str, Mutation] = {
    ".json": trees.json_file,
    ".jsonl": trees.lines_file,
    ".toml": trees.toml_file,
    ".npz": arrays.npz_file,
    ".npy": arrays.npy_file,
    ".safetensors": tensors.safetensors_file,
    ".pt": pickles.torch_file,
    ".pth": pickles.torch_file,
    ".ts": zips.zip_file,
    ".pt2": zips.zip_file,
    ".zip": zips.zip_file,
    ".png": pictures.png_file,
    ".tiff": pictures.tiff_file,
}
"""How a file is changed by its structure; others by their bytes."""


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    parts: tuple[str, ...]
    """Of the world; ``cache`` becomes the folder of LSGM_CACHE."""
    files: tuple[str, ...]
    """Patterns, below the folder of the input, of the files that are changed."""
    commands: tuple[str, ...]
    outs: tuple[str, ...] = ("out",)
    """What the commands may write to."""
    mutation: Mutation | None = None
    """In place of that of the file's ending."""
    seal: Callable[[Path], None] | None = None
    """Makes checksums beside the files right again."""
    group: str = "results"
    """Which of the tests runs it: results, models or images."""
    dear: bool = False
    """Whether an input takes seconds: fewer of them are run."""


MEASURE = "--device cpu --report no"
CURVE = f"--tol none --images 40 {MEASURE}"
EVAL = f"eval task.toml --data images {MEASURE} --model"
NLL = "nll {model} --task task.toml --data images --device cpu --limit 2 --out out"
GATE = "gate {model} --golden golden.json --task task.toml --data images"
READERS = (
    f"sample {MODEL} --n 2 --out out/drawn --device cpu --sampler.name heun --sampler.steps 1",
    NLL.format(model=MODEL),
    f"compare {MODEL} run",
    f"export {MODEL} out --name x",
)
RUN = (
    "train run/config.toml --device cpu --stage2.steps 3",
    "compare run run",
    "reproduce run",
    "export run out",
    "sample run --n 2 --out out/drawn --device cpu --sampler.name heun --sampler.steps 1",
    "report scores run --out out --format md,html",
)


def seal_checkpoints(here: Path) -> None:
    """Write the size and sha256 of every file into the `state.json` beside it."""
    for state in sorted(here.rglob("state.json")):
        if not state.is_file():
            continue
        try:
            held = json.loads(state.read_bytes())
        except (ValueError, RecursionError):
            continue
        files = held.get("files") if isinstance(held, dict) else None
        for name, about in files.items() if isinstance(files, dict) else ():
            path = state.with_name(name)
            if isinstance(about, dict) and path.is_file():
                content = path.read_bytes()
                about |= {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
        state.write_text(json.dumps(held))


_ENTRIES = (
    # Results and what lies beside them.
    Kind(
        "rows",
        ("scores",),
        ("scores/results.jsonl",),
        (
            "report scores --out out --format md,csv,tex,html",
            "report scores --skip-malformed --separate --keep-last --out out",
            "compare scores scores",
            "compare scores scores --json --fail-if-worse",
            "reproduce scores:1",
            "reproduce scores:2",
            "reproduce scores --metric nelbo_bpd --run --out out --device cpu",
        ),
    ),
    Kind(
        "rows beside a run",
        ("results", "run", "exported", "task.toml", "images", "means.ts"),
        ("results/results.jsonl",),
        (
            f"{EVAL} run --out results --only nelbo",
            "report results",
            "export --card exported --measured results/results.jsonl",
            "export run out --measured results/results.jsonl --dtype float32",
        ),
        ("results", "exported", "out"),
    ),
    Kind(
        "call manifests",
        ("scores", "run", "task.toml", "images", "means.ts"),
        ("scores/manifests/*.json",),
        (
            "report scores --out out --format md,html",
            "compare scores scores",
            "reproduce scores:1",
            "reproduce scores:1 --run --out out",
            "reproduce scores:2 --run --out out --device cpu",
        ),
    ),
    Kind(
        "status",
        ("scores", "run", "task.toml", "images", "means.ts"),
        ("scores/status.json",),
        (
            "report scores --out out --format md,html",
            "nll run --task task.toml --data images --device cpu --out scores",
        ),
        ("out", "scores"),
    ),
    Kind(
        "finished measurements",
        ("results", "run", "task.toml", "images", "means.ts", "cache"),
        ("results/cells/*.json",),
        (f"{EVAL} run --out results",),
        ("results",),
    ),
    Kind(
        "cells of a sweep",
        ("curve", "run", "task.toml", "images", "means.ts", "cache"),
        ("curve/cells/*.json", "curve/results.jsonl"),
        (
            f"nfe --model run --task task.toml --data images --samplers heun --nfe 2,4 {CURVE} --out curve",
            "report curve --out out --format md,csv,tex",
        ),
        ("curve", "out"),
    ),
    Kind(
        "scores",
        ("scores", "run", "task.toml", "images", "means.ts"),
        ("scores/scores/*/*.npz",),
        ("nll run --task task.toml --data images --device cpu --out scores --method nelbo --method ode",),
        ("scores",),
    ),
    Kind(
        "scores of images",
        ("scores",),
        ("scores/per-image/*.npz",),
        ("compare scores scores", "report scores --out out --format md", "compare scores scores --md"),
    ),
    Kind(
        "interrupted passes",
        ("results", "run", "task.toml", "images", "means.ts", "cache"),
        ("results/passes/*.npz",),
        (f"{EVAL} run --out results --only quality",),
        ("results",),
    ),
    Kind(
        "cached features",
        ("run", "task.toml", "images", "means.ts", "cache", "results"),
        ("../cache/features/*.npz",),
        (f"{EVAL} run --out out --only quality", "compare results results"),
    ),
    Kind(
        "cached pixels",
        ("run", "task.toml", "images", "means.ts", "cache"),
        ("../cache/derived/*",),
        (
            "nll run --task task.toml --data images --device cpu --limit 2 --out out",
            f"{EVAL} run --out out --only nelbo",
        ),
    ),
    Kind(
        "golden rows",
        ("golden.json", "run", "task.toml", "images", "means.ts"),
        ("golden.json",),
        (
            GATE.format(model="run"),
            GATE.format(model="run") + " --json --retrained",
            GATE.format(model="run") + " --junit out/junit.xml",
        ),
        dear=True,
    ),
    Kind(
        "ablations",
        ("ablation",),
        ("ablation/ablation.json",),
        ("report ablation --out out --format md,tex",),
    ),
    Kind(
        "statistics",
        ("statistics.npz", "few", "means.ts", "images.npz", "task.toml", "images"),
        ("statistics.npz",),
        (
            "fid statistics.npz few --extractor torchscript:means.ts --out out --device cpu",
            f"{EVAL} images.npz --reference means=statistics.npz --only quality --images all --out out",
        ),
    ),
    Kind(
        "figures",
        ("sheet", "scores"),
        ("sheet/report.md", "sheet/results.csv", "sheet/figures/*"),
        ("report scores --out sheet",),
        ("sheet",),
        dear=True,
    ),
    Kind("CSV given back", ("sheet",), ("sheet/results.csv",), ("call:csv sheet/results.csv",)),
    # Recipes and tasks.
    Kind(
        "recipes",
        ("recipe.toml", "few"),
        ("recipe.toml",),
        (
            "train recipe.toml --data few --out out --device cpu --stage1.steps 1 --stage2.steps 0",
            "train --recipe recipe.toml --help",
            "bench cost recipe.toml",
        ),
        group="models",
    ),
    Kind(
        "tasks",
        ("task.toml", "run", "images", "images.npy", "means.ts"),
        ("task.toml",),
        (
            f"{EVAL} run --out out --only nelbo",
            NLL.format(model="run"),
            f"{EVAL} images.npy --images 40 --only quality --out out",
        ),
        group="models",
    ),
    Kind("costs", ("costs.json",), ("costs.json",), ("call:costs costs.json",)),
    Kind("published numbers", ("published.toml",), ("published.toml",), ("call:published published.toml",)),
    Kind(
        "calibrations", ("calibration.toml",), ("calibration.toml",), ("call:calibrations calibration.toml",)
    ),
    # Runs and checkpoints.
    Kind(
        "config of a run",
        ("run", "images", "scores"),
        ("run/config.toml",),
        RUN,
        ("run", "out"),
        group="models",
    ),
    Kind(
        "manifest of a run",
        ("run", "images", "scores"),
        ("run/manifest.json",),
        RUN,
        ("run", "out"),
        group="models",
    ),
    Kind(
        "metrics of a run",
        ("run", "images", "scores"),
        ("run/metrics.jsonl",),
        RUN,
        ("run", "out"),
        group="models",
    ),
    Kind(
        "state",
        ("run", "task.toml", "images", "means.ts"),
        (f"{MODEL}/state.json",),
        (*READERS, *RUN[:1]),
        ("run", "out"),
        group="models",
    ),
    Kind(
        "weights",
        ("run", "task.toml", "images", "means.ts"),
        (f"{MODEL}/ema.safetensors",),
        READERS,
        seal=seal_checkpoints,
        group="models",
    ),
    Kind(
        "optimiser",
        ("half", "images", "recipe.toml"),
        ("half/checkpoints/step-0000003/optimizer.pt",),
        ("train half/config.toml --device cpu --stage2.steps 2",),
        ("half",),
        seal=seal_checkpoints,
        group="models",
    ),
    Kind(
        "raw weights",
        ("half", "images", "recipe.toml"),
        ("half/checkpoints/step-0000003/*.safetensors", "half/checkpoints/*/state.json"),
        (
            "train half/config.toml --device cpu --stage2.steps 2",
            "train recipe.toml --out out --init-from half --device cpu --stage1.steps 0 --stage2.steps 1",
            "train recipe.toml --out out --init-vae-from half --device cpu --stage1.steps 0 --stage2.steps 1",
        ),
        ("half", "out"),
        seal=seal_checkpoints,
        group="models",
    ),
    Kind(
        "exported models",
        ("exported", "results", "task.toml", "images", "means.ts"),
        ("exported/*",),
        (
            "sample exported --n 2 --out out/drawn --device cpu --sampler.name heun --sampler.steps 1",
            "export --card exported --measured results/results.jsonl",
            "recalibrate exported out --moments --images 4 --device cpu",
            "recalibrate exported out --batches 1 --batch-size 2 --device cpu",
            NLL.format(model="exported"),
        ),
        ("exported", "out"),
        seal=seal_checkpoints,
        group="models",
    ),
    Kind(
        "journals of samples",
        ("drawn", "run", "means.ts"),
        (
            "drawn/pictures/.samples.jsonl",
            "drawn/pictures/.pass",
            "drawn/pictures/*.png",
            "drawn/*.json",
            "drawn/*.png",
        ),
        (
            "sample run --n 4 --out drawn/pictures --device cpu --sampler.name heun --sampler.steps 1",
            "fid drawn/pictures drawn/pictures --extractor torchscript:means.ts --device cpu",
        ),
        ("drawn",),
        group="models",
    ),
    Kind(
        "packs of samples",
        ("pack", "run"),
        ("pack/*", "pack/.drawn.npz.samples.jsonl"),
        ("sample run --n 5 --out pack/drawn.npz --device cpu --sampler.name heun --sampler.steps 1",),
        ("pack",),
        group="models",
    ),
    Kind(
        "network of nvlabs",
        ("nvlabs.pt",),
        ("nvlabs.pt",),
        ("import nvlabs nvlabs.pt out", "import nvlabs nvlabs.pt out --help"),
        group="models",
    ),
    Kind(
        "VAE of nvlabs",
        ("nvlabs-vae.pt",),
        ("nvlabs-vae.pt",),
        ("import nvlabs nvlabs-vae.pt out",),
        group="models",
    ),
    Kind(
        "network of score_sde",
        ("score_sde",),
        ("score_sde/*",),
        ("import score-sde score_sde/checkpoint.pth out --config score_sde/config.toml",),
        group="models",
    ),
    Kind(
        "pipeline of diffusers",
        ("ddpm",),
        ("ddpm/*.json", "ddpm/*/*"),
        ("import diffusers ddpm out",),
        group="models",
    ),
    Kind(
        "conformance",
        ("folder",),
        ("folder/*",),
        ("conformance folder", "conformance folder --json"),
        group="models",
    ),
    # Images and data sets.
    Kind(
        "images",
        ("few", "images", "recipe.toml", "run", "task.toml", "means.ts"),
        ("few/*.png",),
        (
            "fid few few --extractor torchscript:means.ts --device cpu",
            "nll run --data few --device cpu --limit 2 --out out",
            "train --recipe recipe.toml --data few --out out --device cpu --stage1.steps 1 --stage2.steps 0",
            f"{EVAL} ready=few --images all --only nelbo --out out",
        ),
        group="images",
    ),
    Kind(
        "other pictures",
        ("formats", "means.ts", "run"),
        ("formats/*",),
        (
            "fid formats formats --extractor torchscript:means.ts --device cpu --convert all",
            "nll run --data formats --device cpu --out out --convert all",
        ),
        group="images",
    ),
    Kind(
        "a zip of images",
        ("images.zip", "run", "means.ts"),
        ("images.zip",),
        (
            "fid images.zip images.zip --extractor torchscript:means.ts --device cpu",
            "nll run --data images.zip --device cpu --limit 2 --out out",
        ),
        group="images",
    ),
    Kind(
        "an npz of images",
        ("images.npz", "run", "means.ts", "task.toml", "images"),
        ("images.npz",),
        (
            "fid images.npz images.npz --extractor torchscript:means.ts --device cpu",
            "nll run --data images.npz --device cpu --limit 2 --out out",
            f"{EVAL} images.npz --images 40 --only quality --out out",
        ),
        group="images",
    ),
    Kind(
        "an npy of images",
        ("images.npy", "run", "means.ts"),
        ("images.npy",),
        (
            "fid images.npy images.npy --extractor torchscript:means.ts --device cpu",
            "nll run --data images.npy --device cpu --limit 2 --out out",
        ),
        group="images",
    ),
    Kind(
        "official files",
        ("data",),
        ("data/mnist/*", "data/cifar10/*"),
        ("data verify mnist", "data verify cifar10", "data ls"),
        group="images",
    ),
    Kind(
        "an idx file",
        ("data",),
        ("data/mnist/train-*.gz",),
        ("call:idx data/mnist/train-images-idx3-ubyte.gz",),
        mutation=None,
        group="images",
    ),
    Kind(
        "the archive of CIFAR-10",
        ("data",),
        ("data/cifar10/*",),
        ("call:cifar data/cifar10/cifar-10-python.tar.gz",),
        group="images",
    ),
    # Networks that measure.
    Kind(
        "a TorchScript",
        ("means.ts", "few"),
        ("means.ts",),
        ("fid few few --extractor torchscript:means.ts --device cpu",),
        group="images",
    ),
    Kind(
        "an exported network",
        ("net.pt2", "few"),
        ("net.pt2",),
        ("fid few few --extractor export:net.pt2 --device cpu",),
        group="images",
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ENTRIES}


def cases(kind: Kind, world: Mapping[str, Path]) -> st.SearchStrategy[Case]:
    """Return the inputs of a kind."""

    @st.composite
    def one(draw: st.DrawFn) -> Case:
        draws = Draws(draw)
        names = _files(kind, world)
        chosen = [draws.pick(names)]
        if len(names) > 1 and draws.chance(10):
            chosen.append(draws.pick([name for name in names if name != chosen[0]]))
        edits = tuple(_edit(kind, name, _specimen(name, world), draws) for name in chosen)
        sealed = kind.seal is not None and draws.chance(70)
        return Case(kind.name, kind.parts, edits, tuple(draws.pick(kind.commands).split()), kind.outs, sealed)

    return one()


def _edit(kind: Kind, name: str, content: bytes, draws: Draws) -> Edit:
    way = draws.whole(1, 100)
    if way > 92:
        return Edit(name, place=draws.pick(list(PLACES)))
    if way > 78:
        return Edit(name, octets.any_file(content, draws))
    mutation = kind.mutation or BY_ENDING.get(Path(name).suffix, octets.any_file)
    try:
        return Edit(name, mutation(content, draws))
    except (
        ValueError,
        KeyError,
        IndexError,
        OverflowError,
        TypeError,
        AttributeError,
        RuntimeError,
        MemoryError,
    ):
        # A change that the format's own writer refuses is no input.
        return Edit(name, octets.any_file(content, draws))


def _root(name: str, world: Mapping[str, Path]) -> tuple[Path, str]:
    """Return the folder of the world that a pattern is below of, and the pattern there."""
    return (
        (world["cache"].parent, name.removeprefix("../"))
        if name.startswith("../cache")
        else (next(iter(world.values())).parent, name)
    )


def _files(kind: Kind, world: Mapping[str, Path]) -> list[str]:
    found = []
    for pattern in kind.files:
        root, below = _root(pattern, world)
        prefix = "../" if pattern.startswith("../") else ""
        found += [prefix + str(path.relative_to(root)) for path in sorted(root.glob(below)) if path.is_file()]
    if not found:
        raise LookupError(f"the kind '{kind.name}' has no file {', '.join(kind.files)} in the world")
    return found


def _specimen(name: str, world: Mapping[str, Path]) -> bytes:
    root, below = _root(name, world)
    return (root / below).read_bytes()
