"""Networks that others have published, as their own code runs them.

Inception-v3 as torch-fidelity and as clean-fid have it, the feature spaces of FID, which are two; and DINOv2
from a local clone of its repository, through torch.hub.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.errors import DataError, UserError
from lsgm.files.names import shown
from lsgm.files.regular import refuse_shared_folder
from lsgm_eval.features.extractor import NetworkExtractor, check_features, last_line
from lsgm_eval.features.own import OwnNetwork, load_script
from lsgm_eval.features.weights import CLEAN_INCEPTION, FIDELITY_INCEPTION, open_network

SPATIAL_CHANNELS = 7
SIDE = 299

MISSING_OPERATOR = "operator torchvision::nms does not exist"
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# torch.library forgets a fragment's schemas when the fragment is collected, so it must live as long as torch.
_fragments: list[Any] = []


class FidelityInception(NetworkExtractor):
    """Pooled features [N, 2048] of torch-fidelity's ``FeatureExtractorInceptionV3``.

    Images of any size are brought to 299x299 by TensorFlow 1's bilinear interpolation, inside its network.
    With the official weights its Frechet distance is FID (arXiv:1706.08500) by torch-fidelity's protocol and
    ``official`` is true; weights of one's own (``inception:FILE``) are named after their file and are another
    space. Its linear layer, without the bias as torch-fidelity has it, gives the classes of the Inception
    Score. Spatial features are those of sFID (arXiv:2103.03841) as ADM measures it: the first 7 channels of
    the 17x17 map ``mixed_6/conv`` of the TensorFlow graph, here ``Mixed_6d.branch1x1``, flattened to 2023.

    Raises DataError for weights that are missing, damaged or of another network.
    """

    dim = 2048
    spatial_dim = SPATIAL_CHANNELS * 17 * 17
    classes = 1008
    resize = "tensorflow1-bilinear-299"

    def __init__(self, file: str = "", *, device: torch.device | str = "cpu") -> None:
        path, self.sha256, net = open_network(
            file, f"the weights {file}", _fidelity_net, published=FIDELITY_INCEPTION
        )
        self.official = self.sha256 == FIDELITY_INCEPTION.sha256
        self.name = "inception" if self.official else f"inception-own-{path.stem}"
        self.device = torch.device(device)
        self.net = net.to(self.device)

    def _features(self, images: Tensor) -> Tensor:
        (pooled,) = self.net(images.to(self.device))
        return cast(Tensor, pooled)

    @torch.inference_mode()
    def with_spatial(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (features [N, 2048], spatial features [N, 2023]) of one pass."""
        seen: list[Tensor] = []
        hook = self.net.Mixed_6d.branch1x1.register_forward_hook(lambda *args: seen.append(args[-1]))
        try:
            pooled = self(images)
        finally:
            hook.remove()
        spatial = seen[0][:, :SPATIAL_CHANNELS].flatten(1)
        return pooled, check_features(self.name, spatial).cpu()

    @torch.inference_mode()
    def class_logits(self, features: Tensor) -> Tensor:
        """Return logits float32 [N, 1008] without bias, torch-fidelity's ``logits_unbiased``."""
        logits: Tensor = features.to(self.device, torch.float32).mm(self.net.fc.weight.T)
        return logits.cpu()


def _fidelity_net(path: Path, raw: bytes) -> Any:
    """Return the network in evaluation mode with the weights that the bytes of a file hold."""
    ensure_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        with warnings.catch_warnings():
            # Of a TorchScript, which the error below is about.
            warnings.simplefilter("ignore", UserWarning)
            state = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        # The package unpickles its file without restriction: it is given one made anew of what is tensors.
        clean = io.BytesIO()
        torch.save(_plain_tensors(state), clean)
        clean.seek(0)
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=clean
        )
    except Exception as error:  # torch's reader has no one kind of error for bytes that are no weights
        reason = shown(" ".join(str(error).split()) or type(error).__name__)[:200]
        raise DataError(
            f"{path} does not hold the weights of torch-fidelity's Inception-v3 ({reason}): give the "
            f"official file {FIDELITY_INCEPTION.file} or a state dict with its names and shapes"
        ) from error


def _plain_tensors(state: object) -> dict[str, Tensor]:
    """Return a state dict of plain tensors of real numbers. Raises ValueError for anything else."""
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}")
    clean: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            raise ValueError(f"'{name}' is no tensor")
        counter = name.endswith("num_batches_tracked")
        if not (tensor.is_floating_point() or counter):
            raise ValueError(f"'{name}' is {tensor.dtype}")
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise ValueError(f"'{name}' claims more numbers than it has")
        clean[name] = tensor.detach().contiguous()
    return clean


class CleanInception(NetworkExtractor):
    """Pooled features [N, 2048] of clean-fid's ``mode="clean"`` with its TorchScript file.

    Every image is resized to 299x299 by clean-fid's own function (see ``CleanResize``), moved to [-1, 1) and
    sent through the ``layers`` of the file. With the official file its Frechet distance is FID by clean-fid's
    protocol (arXiv:2104.11222) and ``official`` is true; a TorchScript of one's own in the same format
    (``inception-clean:FILE``), a program that is run, is named after its file and is another space. The
    weight of its ``output``, without the bias, gives the classes of the Inception Score.

    Raises DataError for a file that is missing, damaged or of another format.
    """

    dim = 2048
    resize = "clean-fid-pil-bicubic-299"

    def __init__(self, file: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        path, self.sha256, (self.layers, self.weight) = open_network(
            file,
            f"the weights {file}",
            lambda path, raw: _clean_net(path, raw, self.device),
            runs=True,
            published=CLEAN_INCEPTION,
        )
        self.official = self.sha256 == CLEAN_INCEPTION.sha256
        self.name = "inception-clean" if self.official else f"inception-clean-own-{path.stem}"
        self.to_size = CleanResize(SIDE)
        self.classes = len(self.weight)

    def _features(self, images: Tensor) -> Tensor:
        resized = self.to_size(images).to(self.device)
        try:
            features: Tensor = self.layers.forward((resized - 128) / 128).reshape(len(resized), -1)
        except Exception as error:  # whatever a program of others makes torch's interpreter raise
            raise DataError(
                f"the layers of {self.name} failed on images 3x299x299: {last_line(error, 200)}"
            ) from error
        if features.shape[1] != self.dim:
            raise DataError(
                f"the layers of {self.name} give {features.shape[1]} features instead of {self.dim}: "
                "name another network as export:FILE.pt2"
            )
        return features.float()

    @torch.inference_mode()
    def class_logits(self, features: Tensor) -> Tensor:
        """Return logits float32 [N, classes] without bias."""
        return features.to(self.device, torch.float32).mm(self.weight.T).cpu()


def _clean_net(path: Path, raw: bytes, device: torch.device) -> tuple[Any, Tensor]:
    """Return the layers and the weight [classes, 2048] of the output of a TorchScript file."""
    module: Any = load_script(path, raw, device)
    layers, weight = getattr(module, "layers", None), getattr(getattr(module, "output", None), "weight", None)
    if layers is None or not isinstance(weight, Tensor) or weight.shape[1:] != (CleanInception.dim,):
        raise DataError(
            f"{path} is not a TorchScript in the format of {CLEAN_INCEPTION.file} (`layers`, and an `output` "
            f"with a weight classes x {CleanInception.dim}): name another network as export:FILE.pt2"
        )
    return layers, weight.detach().float()


class CleanResize:
    """Bring images uint8 [N, 3, H, W] to float32 [N, 3, side, side] in 0..255 by an antialiased bicubic.

    The arithmetic is clean-fid's ``make_resizer("PIL", False, "bicubic", (side, side))`` (arXiv:2104.11222),
    called image by image; Pillow frees the interpreter meanwhile, so that threads share a batch.
    """

    def __init__(self, side: int) -> None:
        ensure_torchvision()
        from cleanfid.resize import make_resizer

        self.one: Callable[[NDArray[Any]], NDArray[Any]] = make_resizer("PIL", False, "bicubic", (side, side))
        self.threads = min(16, os.cpu_count() or 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the images in the new size, in their order, on the CPU."""
        pictures = images.cpu().permute(0, 2, 3, 1).numpy()
        with ThreadPoolExecutor(self.threads) as pool:
            resized = list(pool.map(self.one, pictures))
        return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()


def ensure_torchvision() -> ModuleType:
    """Import and return torchvision, with two bare operator schemas where only they are missing.

    PyPI's torchvision registers fake kernels for ``torchvision::nms`` and ``qnms``, which its compiled part
    defines for the CUDA torch alone. The schemas are defined after that very failure and never before it:
    defining them beside the compiled part aborts the process. The operators stay without a kernel; neither
    torch-fidelity nor clean-fid calls one. Every other error is raised as it came.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if MISSING_OPERATOR not in str(error):
            raise
    # A second import would take the half-imported modules for whole.
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _define_schemas()
    return importlib.import_module("torchvision")


def _define_schemas() -> None:
    library: Any = cast(Any, torch.library.Library)("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    _fragments.append(library)


# DINOv2

DINO_SIDE = 224
DINO_MODEL = "dinov2_vitl14"
DINO_REPOSITORY = "https://github.com/facebookresearch/dinov2"
# Of ImageNet in 0..1, as DINOv2 was trained (arXiv:2304.07193).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DinoV2(OwnNetwork):
    """Features [N, D] of the class token of DINOv2, in which Frechet distances follow human judgement better.

    The protocol is that of arXiv:2306.04675: antialiased bicubic resize to 224x224, ImageNet's mean and
    standard deviation, ViT-L/14 unless another model is named. ``dinov2:DIR[:MODEL]`` names a folder with a
    ``hubconf.py``, whose code is run, so it must be one that you trust; it finds its weights in the cache of
    torch.hub, or downloads them. The sha256 is that of all tensors by name.

    Raises DataError for a folder, a model or weights that are missing, UserError for a model that does not
    give features.
    """

    resize = "clean-fid-pil-bicubic-224"
    takes = "float N x 3 x H x W"

    def __init__(self, spec: str, *, device: torch.device | str = "cpu") -> None:
        folder, model = _folder_and_model(spec)
        found, sha256 = _hub_model(folder, model)
        net, to_size = found.to(torch.device(device)), CleanResize(DINO_SIDE)
        shift, scale = (torch.tensor(c, device=device)[:, None, None] for c in (IMAGENET_MEAN, IMAGENET_STD))

        def features(images: Tensor) -> object:
            return net((to_size(images).to(shift.device) / 255 - shift) / scale)

        name = model.replace("_", "-")
        super().__init__("torch.hub model", name, sha256, features, (3, None, None), device)


def state_sha256(net: torch.nn.Module) -> str:
    """Return the sha256 over the names, dtypes, shapes and bytes of all tensors of a network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _folder_and_model(spec: str) -> tuple[Path, str]:
    """Return (folder, model) of DIR[:MODEL]; a model is a Python name, which no drive or path is."""
    folder, colon, model = spec.rpartition(":")
    if colon and not folder.strip():
        raise UserError(f"the extractor dinov2:{spec} names no folder: write dinov2:DIR or dinov2:DIR:MODEL")
    return (
        (Path(folder).expanduser(), model)
        if colon and model.isidentifier()
        else (Path(spec).expanduser(), DINO_MODEL)
    )


def _hub_model(folder: Path, model: str) -> tuple[Any, str]:
    """Return a model of a folder's hubconf.py in evaluation mode, and the sha256 of its tensors."""
    if not (folder / "hubconf.py").is_file():
        raise DataError(
            f"{folder} has no hubconf.py: run `git clone {DINO_REPOSITORY} {folder}`, "
            "or name the folder that holds it as dinov2:DIR"
        )
    # Its attention asks for xFormers where that is installed, which has no kernels for CPUs.
    os.environ.setdefault("XFORMERS_DISABLED", "1")
    # Both are code, or are unpickled by it.
    refuse_shared_folder(folder / "hubconf.py")
    refuse_shared_folder(Path(torch.hub.get_dir()) / "checkpoints" / "weights")
    try:
        net: Any = torch.hub.load(str(folder), model, source="local")  # type: ignore[no-untyped-call]
        if not isinstance(net, torch.nn.Module):
            raise TypeError(f"it gave a {type(net).__name__}")
        return net.eval().requires_grad_(False), state_sha256(net)
    except (Exception, SystemExit) as error:  # whatever code of others, or torch's reader of weights, raises
        raise DataError(
            f"{folder} did not give the model {model} ({last_line(error)}): name one of its hubconf.py as "
            f"dinov2:{folder}:MODEL, and put its weights into {Path(torch.hub.get_dir()) / 'checkpoints'}"
        ) from error
