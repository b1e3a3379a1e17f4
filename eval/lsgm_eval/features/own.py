"""A network of somebody else's in a file: uint8 images in, float features out, run within bounds.

A graph of a few bytes may ask for more than any machine has. What an operator would allocate is found out
beforehand, by fake tensors that have shapes and no numbers; no whole number grows beyond 64 bits.
"""

from __future__ import annotations

import io
import math
import operator
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from lsgm.errors import DataError, UserError
from lsgm.files.limits import ACTIVATIONS, FEATURES, WEIGHTS
from lsgm.files.names import shown
from lsgm.files.regular import read_member, zip_of
from lsgm_eval.features.extractor import ImageShape, NetworkExtractor, last_line
from lsgm_eval.features.weights import open_network

IMAGE = 2**26
"""Bytes of an image's activations that a batch of many may hold for each of them."""
COUNTED = 4096
"""Bytes of a tensor from which on it counts."""
LARGEST = 2**63
POWER = 64
ANY_SIDE = 224
"""Pixels along a side of the images that a network is first asked with, where any will do."""
ARITHMETIC = ("_operator", "math")
GROW_BY_DATA = ("aten.nonzero.default", "aten.masked_select.default", "aten.index.Tensor")
"""Operators whose results are of no more numbers than what they are of, times its dimensions; how many only
the data tell."""
SCALARS = ("aten._local_scalar_dense.default", "aten.equal.default")
"""Operators that give a number and no tensor."""


class OwnNetwork(NetworkExtractor):
    """Features of a network: uint8 [N, C, H, W] in, float [N, D] out, D found by asking once.

    ``what`` is how errors call it, ``sha256`` is its identity. Raises UserError for a network that breaks the
    shape above.
    """

    takes = "uint8 N x C x H x W of the task's shape"

    def __init__(
        self,
        what: str,
        name: str,
        sha256: str,
        net: Callable[[Tensor], object],
        image_shape: ImageShape,
        device: torch.device | str,
    ) -> None:
        self.what, self.name, self.sha256 = what, name, sha256
        self.net, self.image_shape, self.device = net, image_shape, torch.device(device)
        asked = torch.zeros((2, *(side or ANY_SIDE for side in image_shape)), dtype=torch.uint8)
        self.dim = int(self._features(asked).shape[1])

    # The first question as well: an interpreter that plans for gradients in one call cannot do without in the
    # next, where the network's parameters require them.
    @torch.inference_mode()
    def _features(self, images: Tensor) -> Tensor:
        try:
            out = _plain(self.net(images.to(self.device)), len(images))
        # Networks of others, and torch's interpreters of them, raise whatever they like; also for want of
        # memory.
        except Exception as error:
            shape = "x".join(map(str, images.shape))
            raise UserError(
                f"the {self.what} {shown(self.name)} failed on uint8 images of {shape} "
                f"({last_line(error)}): it must take {self.takes}"
            ) from error
        if out is None:
            raise UserError(f"the {self.what} {shown(self.name)} must return features N x D")
        FEATURES.hold(f"an image in the {self.what} {shown(self.name)}", out.shape[1], UserError)
        return out


def _plain(out: object, count: int) -> Tensor | None:
    """Return features [N, D] of real numbers on the CPU; None for anything else."""
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != count or not out.shape[1]:
        return None
    if out.is_complex() or out.is_quantized or out.layout is not torch.strided:
        return None
    return out.float().cpu()


class TorchScriptExtractor(OwnNetwork):
    """Features of ``torchscript:FILE``.

    The file is a program, which torch's interpreter runs: no Python, but operators that may read and write
    files, so it must be one that you trust. Raises DataError for a file that is missing or is no TorchScript,
    UserError as `OwnNetwork` does.
    """

    def __init__(
        self, file: str, image_shape: tuple[int, int, int], *, device: torch.device | str = "cpu"
    ) -> None:
        path, sha256, net = open_network(
            file,
            f"the TorchScript extractor {file}",
            lambda path, raw: load_script(path, raw, torch.device(device)),
            runs=True,
        )
        super().__init__("TorchScript extractor", path.stem, sha256, net, image_shape, device)


def load_script(path: Path, raw: bytes, device: torch.device) -> torch.jit.ScriptModule:
    """Return the module that the bytes of a TorchScript file hold, in evaluation mode.

    Raises DataError where they hold none.
    """
    try:
        _hold_checksums(raw, path)
        with warnings.catch_warnings():
            # torch.jit is deprecated in favour of torch.export, which does not read these files.
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            module = torch.jit.load(io.BytesIO(raw), map_location=device)  # type: ignore[no-untyped-call]
    # Of a damaged file torch's reader is asked for a member that is not there, or for far too much memory.
    except Exception as error:
        raise DataError(
            f"{path} is not a TorchScript file or is damaged: write it with torch.jit.save"
        ) from error
    script: torch.jit.ScriptModule = module.eval()
    return script


def _hold_checksums(raw: bytes, path: Path) -> None:
    """Raise BadZipFile for a part with a wrong checksum, which torch's reader does not look at.

    It may end the process over what stands there. Where a checksum is 0 torch was asked to write none.
    """
    with zip_of(raw, str(path)) as archive:
        for part in archive.infolist():
            if part.CRC:
                read_member(archive, part, f"{path}: {part.filename}", WEIGHTS)


class Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered no operator allocates what takes the activations of ``count`` images too far.

    Raises DataError for one that would, and for one of which only the data tell how much that is.
    """

    supports_higher_order_operators = True

    def __init__(self, what: str, count: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        from torch._subclasses.fake_tensor import FakeTensorMode

        self.what = what
        self.most = max(ACTIVATIONS.value, IMAGE * count)
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._live: list[tuple[StorageWeakRef, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator, once it is known what it allocates."""
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):  # a part of the graph within an operator
            with self:
                return func(*args, **kwargs)
        new = self._allocated(func, args, kwargs)
        self._live = [(ref, size) for ref, size in self._live if not ref.expired()]  # type: ignore[no-untyped-call]
        if (total := sum(size for _, size in self._live) + new) > self.most:
            raise DataError(
                f"{self.what} needs {total:,} bytes for {func}, and at most {self.most:,} are taken; if you "
                f"know where it comes from, set {ACTIVATIONS.variable}={total}"
            )
        out = func(*args, **kwargs)
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if new and storage.nbytes() >= COUNTED:
                ref: StorageWeakRef = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._live.append((ref, storage.nbytes()))
        return out

    def _allocated(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """Return the bytes that an operator allocates for its results."""
        name = str(func)
        if name in SCALARS:
            return 0
        given = list(_tensors((args, kwargs)))
        with self._fake:
            faked = tree_map(self._faked, (args, kwargs))
            before = {tensor.untyped_storage()._cdata for tensor in _tensors(faked)}
            try:
                out = func(*faked[0], **faked[1])
            except _dynamic() as error:
                if name not in GROW_BY_DATA:
                    raise DataError(
                        f"{self.what} has {name}, of which only the data tell how large it is; export a "
                        "network without it"
                    ) from error
                return sum(8 * max(tensor.ndim, 1) * tensor.numel() for tensor in given)
            fresh = {
                tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in _tensors(out)
            }
            return sum(size for key, size in fresh.items() if key not in before)

    def _faked(self, value: Any) -> Any:
        return self._fake.from_tensor(value) if isinstance(value, Tensor) else value


def bound_numbers(module: torch.nn.Module) -> None:
    """Let no whole number that a graph reckons go beyond 64 bits: squared often enough one fills memory."""
    for part in module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                if node.op == "call_function" and getattr(node.target, "__module__", "") in ARITHMETIC:
                    node.target = _bounded(node.target)
            part.recompile()


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    if function is operator.getitem:
        return function

    def bounded(*args: Any) -> Any:
        powers = function is operator.pow and isinstance(args[1], int) and abs(args[1]) > POWER
        out = math.inf if powers or any(map(_too_large, args)) else function(*args)
        if _too_large(out) or out == math.inf:
            raise OverflowError("a size goes beyond 64 bits")
        return out

    bounded.__name__ = f"bounded_{function.__name__}"
    return bounded


def _too_large(value: Any) -> bool:
    return isinstance(value, int) and abs(value) >= LARGEST


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_iter(values) if isinstance(value, Tensor))


def _dynamic() -> tuple[type[Exception], ...]:
    from torch._subclasses import fake_tensor

    return (
        fake_tensor.DynamicOutputShapeException,
        fake_tensor.DataDependentOutputException,
        fake_tensor.UnsupportedOperatorException,
    )
