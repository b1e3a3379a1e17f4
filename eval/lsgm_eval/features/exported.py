"""A user's own feature space as a ``torch.export`` file, of which the network is taken and nothing else.

`torch.export.load` trusts its file: it unpickles example inputs and objects, evaluates the expressions of
sizes, compiles Python from names, imports modules that a tree of arguments mentions, and loads compiled code.
So it never sees the file itself. It is given an archive made anew from what was checked: the graph as JSON in
which every word is of a known form and every operator is one of ATen's, and tensors as raw numbers.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsgm.errors import DataError, UserError
from lsgm.files.limits import DOCUMENT
from lsgm.files.names import shown
from lsgm.files.text import parse_json
from lsgm_eval.features.extractor import last_line
from lsgm_eval.features.own import Bounded, OwnNetwork, bound_numbers
from lsgm_eval.features.weights import open_network

MODEL = "models/model.json"
INPUTS = "data/sample_inputs/model.pt"
TENSORS = {"data/weights/": "weight_", "data/constants/": "tensor_"}
MARKS = ("archive_format", "archive_version", ".data/version", "byteorder")
"""Members of a few bytes by which torch knows its archives."""

MOST_AT_ONCE = 4096
"""Images that a network may want at a time."""
LONGEST = 1000
"""Characters of a size."""
WORD = re.compile(r"[\w.-]*", re.ASCII)
SYMBOL = r"(?:[su]\d+|Symbol\('[su]\d+'(?:, \w+=(?:True|False))*\))"
EXPRESSION = re.compile(
    rf"(?:{SYMBOL}\*\*\d(?!\*)|Pow\({SYMBOL}, Integer\(\d\)\)|{SYMBOL}|\d{{1,18}}|\*(?!\*)|[\s+\-/(),<>=]"
    "|Integer|Add|Mul|Max|Min|FloorDiv|Mod|PythonMod|CleanDiv|IntTrueDiv|CeilToInt|FloorToInt|ToFloat"
    "|True|False|int_oo)*",
    re.ASCII,
)
"""Sizes as sums, products and quotients of symbols: they reach Python's ``eval``, and towers of powers would
keep it busy for ever."""
HARMLESS = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_\w+"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast)",
    re.ASCII,
)
ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)", re.ASCII)
TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


class ExportedExtractor(OwnNetwork):
    """Features of ``export:FILE.pt2``, as `torch.export.save` writes it.

    Any number of images at a time is taken: of a network exported for one number, or for some range, batches
    are cut to it and the last one is filled up with copies of its last image. Raises DataError for a file
    that is missing, damaged or holds more than a network, UserError for a network of other images.
    """

    def __init__(
        self, file: str, image_shape: tuple[int, int, int], *, device: torch.device | str = "cpu"
    ) -> None:
        path, sha256, net = open_network(
            file, f"the exported extractor {file}", lambda path, raw: _load(path, raw, torch.device(device))
        )
        net.check(image_shape)
        super().__init__("exported extractor", path.stem, sha256, net, image_shape, device)


@dataclass(frozen=True)
class _Network:
    """A network that takes ``fewest`` to ``most`` (None: any number of) images at a time."""

    path: Path
    module: Callable[[Tensor], object]
    shape: tuple[int | None, ...]
    """(channels, height, width) that it takes; None where any will do."""
    fewest: int
    most: int | None
    known: set[int] = field(default_factory=set)
    """Numbers of images at which it was seen to keep within bounds."""

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raise UserError unless images of this shape fit."""
        if len(self.shape) == 3 and all(
            want in (None, got) for want, got in zip(self.shape, image_shape, strict=True)
        ):
            return
        want, got = ("x".join("any" if n is None else str(n) for n in s) for s in (self.shape, image_shape))
        raise UserError(
            f"{self.path} was exported for images of {want} and the images are {got}: export it for these"
        )

    def __call__(self, images: Tensor) -> object:
        """Return the features of images uint8 [N, C, H, W]."""
        parts = [self._one(part) for part in torch.split(images, self.most or max(len(images), 1))]
        whole = [part for part in parts if isinstance(part, Tensor)]
        return torch.cat(whole) if len(whole) == len(parts) else None

    def _one(self, images: Tensor) -> object:
        count = len(images)
        spare = images[-1:].expand(max(self.fewest - count, 0), *images.shape[1:])
        batch = torch.cat([images, spare]).contiguous()
        if len(batch) in self.known:
            out = self.module(batch)
        else:
            with Bounded(shown(str(self.path)), len(batch)):
                out = self.module(batch)
            self.known.add(len(batch))
        return out[:count] if isinstance(out, Tensor) and out.ndim else None


def _load(path: Path, raw: bytes, device: torch.device) -> _Network:
    try:
        clean = _remade(path, raw)
        with _quiet():
            program = torch.export.load(clean)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        return _network(path, program)
    except UserError:  # also DataError
        raise
    except Exception as error:  # torch's reader has no one kind of error for a graph that makes no sense
        raise _damaged(path, last_line(error)) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from printing tracebacks and warnings of what a sentence says."""
    logger = logging.getLogger("torch.export")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _network(path: Path, program: torch.export.ExportedProgram) -> _Network:
    """Return the network of a program; raise UserError where it does not take one tensor of uint8 images."""
    inputs = program.graph_signature.user_inputs
    found = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    takes = found.get(str(inputs[0])) if len(inputs) == 1 else None
    if not isinstance(takes, Tensor) or takes.dtype != torch.uint8 or takes.ndim != 4:
        said = "" if not isinstance(takes, Tensor) else f", not {takes.dtype} of {takes.ndim} dimensions"
        raise UserError(f"{path} must take one tensor of images, uint8 N x C x H x W{said}: export it so")
    batch, *sides = takes.shape
    fewest, most = 1, None
    if isinstance(batch, int):
        fewest = most = batch
    elif (known := program.range_constraints.get(batch.node.expr)) is not None:
        # Infinity has no whole number.
        fewest = max(int(known.lower), 1) if known.lower.is_Integer else 1
        most = int(known.upper) if known.upper.is_Integer else None
    shape = tuple(side if isinstance(side, int) else None for side in sides)
    if fewest > MOST_AT_ONCE:
        raise UserError(f"{path} was exported for {fewest:,} images at a time: export it for fewer, or any")
    module = program.module().requires_grad_(False)
    bound_numbers(module)
    return _Network(path, module, shape, fewest, most)


def _remade(path: Path, raw: bytes) -> io.BytesIO:
    """Return an archive of the graph and the tensors alone. Raises DataError for anything else."""
    members = _members(path, raw)
    if MODEL not in members:
        old = any(name.endswith("serialized_exported_program.json") for name in members)
        said = "was written by a torch before 2.8" if old else "holds no exported network"
        raise DataError(f"{path} {said}: write it with torch.export.save of this torch")
    if any(name.startswith("data/aotinductor/") for name in members):
        raise DataError(f"{path} holds compiled code, which is not run: write it with torch.export.save")
    kept = {name: members[name] for name in MARKS if len(members.get(name, b"x" * 99)) < 32}
    kept[MODEL] = json.dumps(_Cleaner(path).clean("", _json(path, members[MODEL]))).encode()
    kept[INPUTS] = b""
    for folder, prefix in TENSORS.items():
        kept |= _tensors(path, members, folder, prefix)
    members.clear()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        while kept:
            name, content = kept.popitem()
            out.writestr(f"network/{name}", content)
    archive.seek(0)
    return archive


def _members(path: Path, raw: bytes) -> dict[str, bytes]:
    """Return the members of an archive by their names below its one folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            infos = archive.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):  # which also bounds memory
                raise zipfile.BadZipFile("its members are compressed")
            if sum(info.file_size for info in infos) > len(raw):
                raise zipfile.BadZipFile("its members overlap")
            tops = {info.filename.partition("/")[0] for info in infos if "/" in info.filename}
            skip = len(next(iter(tops))) + 1 if len(tops) == 1 else 0
            return {info.filename[skip:]: archive.read(info) for info in infos}
    # A list of what damaged bytes raise would never be whole.
    except Exception as error:
        raise _damaged(path, shown(" ".join(str(error).split()))) from error


def _tensors(path: Path, members: Mapping[str, bytes], folder: str, prefix: str) -> dict[str, bytes]:
    """Return the members of weights or constants that are raw numbers, and the table that describes them."""
    table = f"{folder}model_{folder.split('/')[1]}_config.json"
    if table not in members:
        raise _damaged(path, f"{table} is missing")
    found = _Cleaner(path).clean("", _json(path, members[table]))
    kept = {table: json.dumps(found).encode()}
    entries = found.get("config") if isinstance(found, dict) else None
    if not isinstance(entries, dict):
        raise _damaged(path, f"{table} is no table")
    for name, entry in entries.items():
        place = entry.get("path_name") if isinstance(entry, dict) else None
        raw_numbers = isinstance(entry, dict) and entry.get("use_pickle") is False
        if not (raw_numbers and isinstance(place, str) and re.fullmatch(rf"{prefix}\d+", place)):
            raise DataError(
                f"{path} holds {name} as a pickled object, which is not opened: export a network whose "
                "weights and constants are plain tensors"
            )
        if f"{folder}{place}" not in members:
            raise _damaged(path, f"{folder}{place} is missing")
        kept[f"{folder}{place}"] = members[f"{folder}{place}"]
    return kept


def _json(path: Path, raw: bytes | str) -> Any:
    DOCUMENT.hold(shown(str(path)), len(raw))
    try:
        return parse_json(raw, "its graph")
    except DataError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} is not a file of torch.export or is damaged ({reason[:200]}): "
        "write it with torch.export.save"
    )


class _Cleaner:
    """Copies a graph's JSON; what is of no known form raises DataError, what only explains is left out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def clean(self, key: str, value: Any) -> Any:
        """Return a copy of the value that stands under ``key``."""
        if isinstance(value, dict):
            if key == "metadata":
                return {}  # stack traces, and the dotted names of functions that torch would look up
            if value.keys() == {"type", "index"}:
                return {"type": "cpu", "index": None}  # where it was exported; it is moved once it is loaded
            return {self._word("a name", name): self.clean(name, inner) for name, inner in value.items()}
        if isinstance(value, list):
            # Conditions on shapes as Python; the shapes themselves say as much, and are checked here.
            return [] if key == "guards_code" else [self.clean(key, inner) for inner in value]
        return self._text(key, value) if isinstance(value, str) else value

    def _text(self, key: str, text: str) -> str:
        if key in ("as_string", "as_strings", "torch_version"):
            return text  # constants that operators get, as those of F.interpolate
        if key == "target":
            return self._operator(text)
        if key == "expr_str":
            return self._matching(EXPRESSION, "a size", text if len(text) <= LONGEST else "?")
        if key in ("in_spec", "out_spec"):
            self._tree(_json(self.path, text))
            return text
        if key in ("as_operator", "class_fqn"):
            raise self._strange("an object", text)
        return self._word(key, text)

    def _operator(self, name: str) -> str:
        if HARMLESS.fullmatch(name):
            return name
        found = ATEN.fullmatch(name)
        packet = getattr(torch.ops.aten, found[1], None) if found else None
        overload = getattr(packet, found[2], None) if found else None
        schema = getattr(overload, "_schema", None)
        # Of operators with files there are aten::from_file and TorchScript's own aten::save.
        if schema is None or any(argument.name == "filename" for argument in schema.arguments):
            raise self._strange("an operator", name)
        return name

    def _tree(self, tree: Any) -> None:
        """Check how arguments are nested: in tuples, lists and dicts, whose context is a list of keys."""
        if isinstance(tree, list):
            for part in tree:
                self._tree(part)
        elif isinstance(tree, dict):
            if tree.get("type") not in TREES:
                raise self._strange("arguments in", str(tree.get("type")))
            self._matching(re.compile(r'[\w\s\[\]",.-]*', re.ASCII), "arguments in", str(tree.get("context")))
            self._tree(tree.get("children_spec"))
        elif not isinstance(tree, int | None):
            raise self._strange("arguments in", str(tree))

    def _word(self, what: str, text: str) -> str:
        return self._matching(WORD, what, text)

    def _matching(self, form: re.Pattern[str], what: str, text: str) -> str:
        if not form.fullmatch(text):
            raise self._strange(what, text)
        return text

    def _strange(self, what: str, text: str) -> DataError:
        return DataError(
            f"{self.path} has {what} '{text[:60]}', which a network of plain tensors and ATen's operators "
            "has no need of: it is not opened; export such a network"
        )
