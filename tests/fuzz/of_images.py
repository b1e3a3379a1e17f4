"""Kinds of files that hold images, and networks that measure them."""

from __future__ import annotations

from fuzz.kind import Kind
from fuzz.lines import EVAL, seal_mirrors

__all__ = ["ENTRIES"]

ENTRIES = (
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
    ),
    Kind(
        "other pictures",
        ("formats", "means.ts", "run"),
        ("formats/*",),
        (
            "fid formats formats --extractor torchscript:means.ts --device cpu --convert all",
            "nll run --data formats --device cpu --out out --convert all",
        ),
    ),
    Kind(
        "a zip of images",
        ("images.zip", "run", "means.ts"),
        ("images.zip",),
        (
            "fid images.zip images.zip --extractor torchscript:means.ts --device cpu",
            "nll run --data images.zip --device cpu --limit 2 --out out",
        ),
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
    ),
    Kind(
        "an npy of images",
        ("images.npy", "run", "means.ts"),
        ("images.npy",),
        (
            "fid images.npy images.npy --extractor torchscript:means.ts --device cpu",
            "nll run --data images.npy --device cpu --limit 2 --out out",
        ),
    ),
    Kind(
        "official files",
        ("data",),
        ("data/mnist/*", "data/cifar10/*"),
        ("data verify mnist", "data verify cifar10", "data ls"),
    ),
    Kind(
        "an idx file",
        ("data",),
        ("data/mnist/train-*.gz",),
        ("call:idx data/mnist/train-images-idx3-ubyte.gz",),
        mutation=None,
    ),
    Kind(
        "the archive of CIFAR-10",
        ("data",),
        ("data/cifar10/*",),
        ("call:cifar data/cifar10/cifar-10-python.tar.gz",),
    ),
    Kind("a MATLAB file", ("chardata.mat",), ("chardata.mat",), ("call:chardata chardata.mat",)),
    Kind(
        "a mirror of a data set",
        ("mirror", "run"),
        ("mirror/fixed/*",),
        ("data verify mnist-fixed", "data ls", "nll run --task mnist-fixed --device cpu --out out"),
        seal=seal_mirrors,
    ),
    Kind(
        "a TorchScript",
        ("means.ts", "few"),
        ("means.ts",),
        ("fid few few --extractor torchscript:means.ts --device cpu",),
    ),
    Kind(
        "an exported network",
        ("net.pt2", "few"),
        ("net.pt2",),
        ("fid few few --extractor export:net.pt2 --device cpu",),
    ),
)
