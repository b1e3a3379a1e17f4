"""The weights of published feature spaces: looked up offline, known by their sha256, else downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from lsgm.data.dataset import RemoteFile
from lsgm.data.download import Weights, download
from lsgm.data.places import first_good, is_there, roots
from lsgm.errors import DataError
from lsgm.files.limits import NETWORK
from lsgm.files.names import shown
from lsgm.files.regular import read_bytes, refuse_shared_folder, refuse_special, zip_of
from lsgm.files.write import cache_dir
from lsgm.logs import log

T = TypeVar("T")

FIDELITY_INCEPTION = RemoteFile(
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
"""State dict of the TensorFlow Inception of 2015 as torch-fidelity publishes it, 91 MiB."""

CLEAN_INCEPTION = RemoteFile(
    "inception-2015-12-05.pt",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
)
"""The same network as a TorchScript, as StyleGAN2-ADA publishes it and clean-fid uses it, 91 MiB."""

# pytorch-fid publishes the same bytes under another name, so its cache serves as well.
ALIASES = {FIDELITY_INCEPTION.file: ("pt_inception-2015-12-05-6726825d.pth",)}


def _below(file: str) -> list[Path]:
    return [place for root in roots() for place in (root / "features" / file, root / file)]


def _places(remote: RemoteFile) -> list[Path]:
    """Return where published weights may lie, those under another package's name last.

    Below the data folders, as torch.hub keeps them, and in the system's folder for temporary files, where
    clean-fid has its own.
    """
    others = [Path(torch.hub.get_dir()) / "checkpoints", Path(tempfile.gettempdir())]
    names = (remote.file, *ALIASES.get(remote.file, ()))
    return [place for name in names for place in (*_below(name), *(folder / name for folder in others))]


def open_own(file: str, what: str, use: Callable[[Path], T], *, runs: bool = False) -> tuple[Path, T]:
    """Return the place of a user's own file, as given or below a data folder, and what ``use`` makes of it.

    A copy that ``use`` refuses by a DataError does not hide a good one in the next place; nor does one below
    a data folder that everybody may write to, or anywhere such where the file is a program that ``runs``.
    Raises DataError naming every place, and what is wrong with each copy.
    """
    places = list(dict.fromkeys([Path(file).expanduser(), *_below(file)]))
    there = [place for place in places if is_there(place)]
    if not there:
        looked = ", ".join(map(str, places))
        raise DataError(
            f"{what} is not here; looked for {looked}: give its path, "
            "or set LSGM_DATA to a folder that holds features/"
        )

    def opened(place: Path) -> tuple[Path, T]:
        refuse_special(place)
        if runs or place != places[0]:
            refuse_shared_folder(place)
        return place, use(place)

    return first_good([partial(opened, place) for place in there], [p for p in places if p not in there])


def open_network(
    file: str,
    what: str,
    build: Callable[[Path, bytes], T],
    *,
    runs: bool = False,
    published: RemoteFile | None = None,
) -> tuple[Path, str, T]:
    """Return the place and the sha256 of a network's file, and what ``build`` makes of its bytes.

    Without a ``file`` it is the ``published`` one. Raises DataError as `open_own` and `find_weights`.
    """

    def built(path: Path) -> tuple[str, T]:
        raw = _read_own(path)
        return hashlib.sha256(raw).hexdigest(), build(path, raw)

    if file or published is None:
        path, (sha256, network) = open_own(file, what, built, runs=runs)
        return path, sha256, network
    path = find_weights(published)
    sha256, network = built(path)
    if sha256 != published.sha256:
        raise DataError(
            f"{path} has changed while it was read: its sha256 is {sha256}; run the command again"
        )
    return path, sha256, network


def _read_own(path: Path) -> bytes:
    """Return the bytes of a network's file, once: what is hashed is what is opened.

    Raises DataError where it cannot be read, is larger than `NETWORK`, or an archive that would be once it is
    unpacked.
    """
    raw = read_bytes(path, NETWORK)
    broken = (zipfile.BadZipFile, ValueError, NotImplementedError, OSError)  # which torch's reader says
    with contextlib.suppress(*broken), zip_of(raw, str(path)) as archive:
        NETWORK.hold(shown(str(path)), sum(info.file_size for info in archive.infolist()))
    return raw


def find_weights(remote: RemoteFile, *, attempts: int = 2, timeout: float = 20.0) -> Path:
    """Return a verified file of published weights, downloading it where it is nowhere here.

    Args:
        remote: Its name, address and sha256.
        attempts: Connections tried in a row without progress.
        timeout: Seconds of silence after which a connection is given up.

    A copy of another sha256, or one that cannot be read, is named on standard error and passed over.

    Raises:
        DataError: no good copy and no network; says what is wrong with each copy, and what to run.
    """
    places = _places(remote)
    target = cache_dir() / "data" / "features" / remote.file
    there, wrong = [place for place in places if is_there(place)], ""
    try:
        if there:
            copies = [partial(_verified, remote, place) for place in there]
            # Where a download follows, what it says names all places.
            nothing_in = [place for place in places if place not in there and target in there]
            return first_good(copies, nothing_in)
    except DataError as error:
        if target in there:  # a download does not overwrite
            raise
        wrong = f"{error}; "
    try:
        download(
            remote.url,
            target,
            check=lambda part: _accept(remote, part),
            attempts=attempts,
            timeout=timeout,
        )
    except DataError as error:
        reason = str(error).partition(";")[0]
        raise MissingWeightsError([remote], reason, wrong) from error
    if wrong:
        log.warning(f"{target} is downloaded, because {wrong.removesuffix('; ')}")
    return target


def _verified(remote: RemoteFile, place: Path) -> Path:
    refuse_shared_folder(place)
    if problem := remote.problem(place):
        raise DataError(f"{problem}; delete it and run the same command again")
    return place


def _accept(remote: RemoteFile, part: Path) -> None:
    if problem := remote.problem(part):
        raise DataError(f"what {remote.url} sent is not the file wanted: {problem}")


ELSEWHERE = "or take a distance in another network's features, never called FID: --extractor export:FILE.pt2"
"""What can be done without published weights."""


class MissingWeightsError(DataError):
    """Published weights that are nowhere here and could not be downloaded; one sentence of what to do.

    Args:
        files: The weights.
        reason: Why they could not be downloaded.
        wrong: What is wrong with the copies that were found, ending in ``; ``; empty without any.
    """

    def __init__(self, files: Sequence[RemoteFile], reason: str, wrong: str = "") -> None:
        self.files, self.reason, self.wrong = tuple(files), reason, wrong
        what = " and ".join(remote.file for remote in self.files)
        super().__init__(
            f"{wrong}the weights {what} are not here (looked in {_looked()}): {reason}; run "
            f"{_commands(self.files)} where there is a network and copy them to "
            f"{cache_dir() / 'data' / 'features'}, {ELSEWHERE}"
        )


def joined(errors: Sequence[DataError]) -> DataError:
    """Return why none of several networks can be opened: of missing weights once what they have in common."""
    missing = [error for error in errors if isinstance(error, MissingWeightsError)]
    if len(missing) == len(errors):
        files = [remote for error in missing for remote in error.files]
        return MissingWeightsError(files, missing[0].reason, "".join(error.wrong for error in missing))
    others = (str(error).partition("; ")[0] for error in errors[1:])  # what to do is said once
    return DataError("; ".join(dict.fromkeys([str(errors[0]), *others])))


def _looked() -> str:
    """Return the folders in which weights are looked for, a data folder standing for its ``features`` too."""
    folders = [*roots(), Path(torch.hub.get_dir()) / "checkpoints", Path(tempfile.gettempdir())]
    return ", ".join(map(str, dict.fromkeys(folders)))


def _commands(files: Sequence[RemoteFile]) -> str:
    """Return what fetches files: `lsgm data fetch` those that it knows, curl others."""
    known = {weights.remote.file: name for name, weights in PUBLISHED.items()}
    names = [known[remote.file] for remote in files if remote.file in known]
    others = [f"`curl -L -O {remote.url}`" for remote in files if remote.file not in known]
    return " and ".join([f"`lsgm data fetch {' '.join(names)}`"] * bool(names) + others)


def _weights(remote: RemoteFile) -> Weights:
    return Weights(remote, partial(_places, remote), partial(find_weights, remote, attempts=5, timeout=60.0))


PUBLISHED = {"inception": _weights(FIDELITY_INCEPTION), "inception-clean": _weights(CLEAN_INCEPTION)}
"""What `lsgm data fetch` knows besides datasets, by the names of the feature spaces."""
