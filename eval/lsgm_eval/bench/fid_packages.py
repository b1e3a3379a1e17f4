"""The same PNG files with this package, torch-fidelity and clean-fid, on the same weights."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lsgm_eval.bench.fid_ways import extract, pass_over, pictures, state_file, take_turns, write_script
from lsgm_eval.features.extractor import Extractor
from lsgm_eval.features.inception import CleanInception, FidelityInception, ensure_torchvision
from lsgm_eval.metrics.frechet import frechet_distance
from lsgm_eval.models.open import open_model

if TYPE_CHECKING:
    from lsgm_eval.bench.fid import Options

__all__ = ["measure_packages"]

OURS = "this package"


def measure_packages(options: Options) -> list[dict[str, Any]]:
    """Return the seconds of each package and of this one: files to features, with the network at hand, and
    files and weights to a distance.

    ``difference`` is the largest of any feature relative to the largest feature, or that of the distances.
    """
    ensure_torchvision()
    with state_file(options) as state, tempfile.TemporaryDirectory(prefix="lsgm-bench-") as place:
        script = Path(place) / "inception-2015-12-05.pt"
        write_script(state, script)
        folders = [Path(place) / name for name in ("first", "second")]
        for number, folder in enumerate(folders):
            _write(pictures(options.images, options.size, options.seed + number), folder)
        rows = _features(state, script, folders[0], options)
        return rows + _distances(state, folders, options)


def _features(state: Path, script: Path, folder: Path, options: Options) -> list[dict[str, Any]]:
    """Return rows of torch-fidelity's and clean-fid's features beside ours, each network run before."""
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W
    from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

    fidelity, clean = FidelityInception(str(state)), CleanInception(str(script))
    theirs = create_feature_extractor("inception-v3-compat", ["2048"], **_torch_fidelity(state))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit
        their_clean = InceptionV3W(str(script.parent), download=False)
    batch = options.batch

    def by_torch_fidelity() -> Any:
        given = _torch_fidelity(state) | {"input1": str(folder), "batch_size": batch}
        return extract_featuresdict_from_input_id(1, theirs, **given)["2048"].numpy()

    def by_clean_fid() -> Any:
        given = {"num_workers": 0, "batch_size": batch, "device": torch.device("cpu"), "verbose": False}
        return get_folder_features(str(folder), their_clean, mode="clean", **given)

    rows = []
    ours: Extractor
    for ours, package, way in (
        (fidelity, "torch-fidelity", by_torch_fidelity),
        (clean, "clean-fid", by_clean_fid),
    ):
        # TorchScript compiles in its first runs.
        for _ in range(2):
            extract(ours, torch.zeros(2, 3, options.size, options.size, dtype=torch.uint8), 2)
            if package == "clean-fid":
                their_clean(torch.zeros(2, 3, 299, 299))
        pair: dict[str, Callable[[], Any]] = {OURS: partial(_rows, ours, folder, options), package: way}
        rows += _compare(pair, "features", options)
    return rows


def _distances(state: Path, folders: list[Path], options: Options) -> list[dict[str, Any]]:
    from torch_fidelity import calculate_metrics

    def by_us() -> float:
        extractor = FidelityInception(str(state))
        a, b = (pass_over(open_model(str(f)), options.images, extractor, options.batch) for f in folders)
        return frechet_distance(a.moments, b.moments)

    def by_torch_fidelity() -> float:
        inputs = {f"input{k + 1}": str(folder) for k, folder in enumerate(folders)}
        given = _torch_fidelity(state) | inputs | {"batch_size": options.batch, "fid": True}
        return float(calculate_metrics(**given)["frechet_inception_distance"])

    return _compare({OURS: by_us, "torch-fidelity": by_torch_fidelity}, "distance", options)


def _compare(pair: dict[str, Callable[[], Any]], result: str, options: Options) -> list[dict[str, Any]]:
    ours, theirs = pair
    timed = take_turns(pair, options.repeats, desc=f"{theirs}, {result}")
    mine, others = (np.asarray(timed[name].value, dtype=np.float64) for name in pair)
    images = options.images * (1 if result == "features" else 2)
    head = {"with": theirs, "result": result, "images": images, "repeats": options.repeats}
    difference = {"difference": float(np.abs(mine - others).max() / np.abs(others).max())}
    return [head | {"way": name, **times.as_row(timed[ours]), **difference} for name, times in timed.items()]


def _rows(extractor: Extractor, folder: Path, options: Options) -> Any:
    return pass_over(open_model(str(folder)), options.images, extractor, options.batch).rows


def _torch_fidelity(state: Path) -> dict[str, Any]:
    weights = {"feature_extractor_weights_path": str(state)}
    return {"cuda": False, "verbose": False, "cache": False, "save_cpu_ram": True, **weights}


def _write(images: Tensor, folder: Path) -> None:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:06d}.png")
