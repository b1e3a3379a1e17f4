"""Valid files of other code, and of published data sets: tiny ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.specimens import part

__all__: list[str] = []


@part("nvlabs.pt")
def _nvlabs(path: Path) -> None:
    import torch
    import upstream

    torch.save(upstream.stage2(steps=2), path)


@part("nvlabs-vae.pt")
def _nvlabs_vae(path: Path) -> None:
    import torch
    import upstream

    torch.save(upstream.stage1(), path)


@part("folder")
def _folder(path: Path) -> None:
    import upstream

    upstream.write_folder(path, upstream.stage2(steps=2))


@part("score_sde")
def _score_sde(path: Path) -> None:
    import tomli_w
    from oracles.score_sde import SlowScoreSDE, contents, save

    settings: dict[str, Any] = {
        "dataset": "images",
        "image_size": 8,
        "num_channels": 1,
        "binary": False,
        "random_flip": False,
        "nf": 8,
        "ch_mult": [1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "sde": "vesde",
        "centered": False,
        "scale_by_sigma": True,
        "embedding_type": "fourier",
    }
    path.mkdir()
    (path / "config.toml").write_text(tomli_w.dumps(settings))
    save(contents(SlowScoreSDE(settings, channels=1), step=3), path / "checkpoint.pth")


@part("ddpm")
def _ddpm(path: Path) -> None:
    from ddpm_folders import pipeline

    pipeline(path)


def _idx(array: Any) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(np.uint8).tobytes()
    )


@part("data")
def _data(path: Path) -> None:
    """Folders of official files, small ones: the commands refuse them by their sums, the readers do not."""
    draw = np.random.default_rng(0)
    (path / "mnist").mkdir(parents=True)
    shapes = {
        "train-images-idx3-ubyte": (20, 28, 28),
        "train-labels-idx1-ubyte": (20,),
        "t10k-images-idx3-ubyte": (10, 28, 28),
        "t10k-labels-idx1-ubyte": (10,),
    }
    for name, shape in shapes.items():
        raw = _idx(draw.integers(0, 10, shape))
        (path / "mnist" / f"{name}.gz").write_bytes(gzip.compress(raw, mtime=0))
    (path / "cifar10").mkdir()
    with tarfile.open(path / "cifar10" / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
            batch = {b"data": draw.integers(0, 256, (4, 3072), dtype=np.uint8), b"labels": [1, 2, 3, 4]}
            content = pickle.dumps(batch)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@part("chardata.mat")
def _chardata(path: Path) -> None:
    import scipy.io

    columns = np.random.default_rng(1).random((784, 40))
    content = {"data": columns, "testdata": columns[:, :10], "target": np.eye(50)[:, np.arange(40)]}
    scipy.io.savemat(path, content | {"targetchar": np.arange(40)[None]}, do_compression=True)


@part("mirror")
def _mirror(path: Path) -> None:
    """A packed data set with the manifest that its folder is known by, too few images for its name."""
    folder = path / "fixed"
    folder.mkdir(parents=True)
    packed = np.random.default_rng(2).integers(0, 256, (12, 98), dtype=np.uint8)
    np.savez(folder / "packed.npz", train=packed, valid=packed[:3], test=packed[:3])
    raw = (folder / "packed.npz").read_bytes()
    entry = {"file": "packed.npz", "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    manifest = {"name": "mnist-fixed", "version": "mirror-1", "splits": {}, "files": [entry]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
