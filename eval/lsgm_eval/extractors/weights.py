"""The weights of published feature spaces: looked up offline, known by their sha256, else downloaded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from lsgm.data.download import download
from lsgm.data.remote import RemoteFile
from lsgm.data.store import cache_dir, roots
from lsgm.errors import DataError

__all__ = ["CLEAN_INCEPTION", "FIDELITY_INCEPTION", "find_own", "find_weights", "places_of"]

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


def places_of(file: str) -> list[Path]:
    """Return where a file of a feature space may lie: below the data folders, and as torch.hub keeps it.

    clean-fid keeps its weights in the system's folder for temporary files, so this is the last place.
    """
    below = [place for root in roots() for place in (root / "features" / file, root / file)]
    return [*below, Path(torch.hub.get_dir()) / "checkpoints" / file, Path(tempfile.gettempdir()) / file]


def find_own(file: str, what: str) -> Path:
    """Return a user's own file as given, or below a data folder. Raises DataError naming every place."""
    places = [Path(file).expanduser()]
    places += [place for root in roots() for place in (root / "features" / file, root / file)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        looked = ", ".join(str(place) for place in places)
        raise DataError(
            f"{what} is not here; looked for {looked}: give its path, "
            "or set LSGM_DATA to a folder that holds features/"
        )
    return found


def find_weights(remote: RemoteFile, *, attempts: int = 2, timeout: float = 20.0) -> Path:
    """Return a verified file of published weights, downloading it where it is in none of ``places_of``.

    Args:
        remote: Its name, address and sha256.
        attempts: Connections tried in a row without progress.
        timeout: Seconds of silence after which a connection is given up.

    Raises:
        DataError: a file of another sha256, or no file and no network; says what to run.
    """
    names = (remote.file, *ALIASES.get(remote.file, ()))
    places = [place for name in names for place in places_of(name)]
    found = next((place for place in places if place.is_file()), None)
    if found is not None:
        if problem := remote.problem(found):
            raise DataError(f"{problem}; delete it and run the same command again")
        return found
    target = cache_dir() / "data" / "features" / remote.file
    try:
        download(
            remote.url,
            target,
            check=lambda part: _accept(remote, part),
            attempts=attempts,
            timeout=timeout,
        )
    except DataError as error:
        raise _missing(remote, target, error) from error
    return target


def _accept(remote: RemoteFile, part: Path) -> None:
    if problem := remote.problem(part):
        raise DataError(f"what {remote.url} sent is not the file wanted: {problem}")


def _missing(remote: RemoteFile, target: Path, error: DataError) -> DataError:
    looked = ", ".join(map(str, places_of(remote.file)))
    reason = str(error).partition(";")[0]
    return DataError(
        f"the weights {remote.file} (sha256 {remote.sha256}) are not here; looked for {looked}; "
        f"{reason}; run `curl -L --create-dirs -o {target} {remote.url}`, "
        "or copy the file to one of these places, or choose another feature space (torchscript:FILE)"
    )
