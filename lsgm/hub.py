"""Models of the Hugging Face Hub by name, ``hf://owner/name[@revision]``: down to a folder, and up from one.

What is fetched is one document that lists files with size and sha256, and those files; it lies where
huggingface_hub keeps what it fetches, and is fetched once. That package, the extra ``hub``, is imported when
such a name is met and not before. Within one process a name stays what it was when it was first asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lsgm.errors import CheckpointError
from lsgm.files.limits import DOCUMENT, WEIGHTS
from lsgm.files.names import said, shown
from lsgm.logs import log

T = TypeVar("T")

_PREFIX = re.compile(r"hf:/+")
_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"(?:hf:/+)?({_PART}/{_PART})(?:@([\w.-]+(?:/[\w.-]+)*))?/?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A whole one."""
_SIGN_IN = "sign in by `hf auth login`, or set HF_TOKEN"
_OURS = frozenset({".gitattributes"})
"""Files that the Hub itself puts into a new repository."""


@dataclass(frozen=True)
class HubName:
    """A repository of models on the Hub, and a branch, tag or commit of it."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        """Return what a person types."""
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")


class ListedFile(NamedTuple):
    """What a document says of a file beside it."""

    size: int
    sha256: str


def hub_name(word: Path | str) -> HubName | None:
    """Return what a word or a path names on the Hub, None where it is one of this machine.

    A path has one slash where a person types two. Raises CheckpointError for ``hf:/`` and no name after it.
    """
    text = word.as_posix() if isinstance(word, Path) else word
    return parse_name(_PREFIX.sub("hf://", text)) if _PREFIX.match(text) else None


def parse_name(text: str) -> HubName:
    """Return the name of a repository, with or without ``hf://``. Raises CheckpointError for no such name."""
    found = _NAME.fullmatch(text)
    if found is None:
        raise CheckpointError(
            f"'{shown(text)}' names nothing on the Hub; give hf://OWNER/NAME, or hf://OWNER/NAME@REVISION"
        )
    return HubName(found[1], found[2])


class _UnreachableError(CheckpointError):
    """The Hub does not answer, so that what was fetched before may do."""


@cache
def fetch(name: HubName, document: str, listed: Callable[[Path], Mapping[str, ListedFile]]) -> Path:
    """Return the folder of the Hub's cache with a repository's ``document`` and the files that it lists.

    ``listed`` reads them from the folder with the document in it. Files of other sizes or checksums than it
    says are not kept. Without a network what was fetched before is taken, and that is said. Raises
    CheckpointError, one sentence, where the extra is not installed, for what is not there or not to be seen,
    and for a repository without the document.
    """
    _library(name)
    try:
        if name.revision and COMMIT.fullmatch(name.revision) and (kept := _kept(name, document, listed)):
            return kept  # what a commit holds does not change
        return _fetched(name, document, listed)
    except _UnreachableError as error:
        kept = _kept(name, document, listed)
        if kept is None:
            raise
        log.warning(f"{error}; taken as it was fetched before")
        return kept


def _fetched(name: HubName, document: str, listed: Callable[[Path], Mapping[str, ListedFile]]) -> Path:
    api = _library(name).HfApi(library_name="lsgm-bench")
    info = _ask(name, lambda: api.model_info(name.repo, revision=name.revision, files_metadata=True))
    there = {file.rfilename: file for file in info.siblings or ()}
    if document not in there:
        raise CheckpointError(
            f"{name} holds no checkpoint of lsgm ({_some(there)}); give another name, or import it"
        )
    DOCUMENT.hold(f"{name}: {document}", there[document].size or 0, CheckpointError)

    def download(file: str, revision: str | None) -> Path:
        return Path(_ask(name, lambda: api.hf_hub_download(name.repo, file, revision=revision)))

    folder = download(document, name.revision).parent
    if folder.name not in (info.sha, name.revision):  # a commit has come in between
        return _fetched(HubName(name.repo, folder.name), document, listed)
    files = listed(folder)
    for file, (size, sha256) in files.items():
        known = there.get(file)
        large = getattr(known, "lfs", None)
        if known is None or known.size != size or (large is not None and large.sha256 != sha256):
            what = "is not there" if known is None else "is another than it says"
            raise CheckpointError(f"{name}: {file} {what} in {document}; push the model again")
        WEIGHTS.hold(f"{name}: {file}", size, CheckpointError)
    for file, (_, sha256) in files.items():
        fresh = not (folder / file).exists()
        path = download(file, folder.name)
        if fresh and _sha256(path) != sha256:
            for place in (Path(os.path.realpath(path)), path):
                place.unlink(missing_ok=True)
            raise CheckpointError(
                f"{name}: {file} has another sha256 than {document} says and is not kept; try again, or push "
                "the model again"
            )
    return folder


def _kept(name: HubName, document: str, listed: Callable[[Path], Mapping[str, ListedFile]]) -> Path | None:
    """Return the folder in which all was fetched before, None where there is none."""
    found = _library(name).try_to_load_from_cache(name.repo, document, revision=name.revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    return folder if all((folder / file).is_file() for file in listed(folder)) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# A folder up to the Hub


class Pushed(NamedTuple):
    """Where a folder is on the Hub."""

    url: str
    commit: str
    changed: bool
    """Whether anything there was not so before."""


def push(
    name: HubName,
    files: Mapping[str, Path | bytes],
    *,
    document: str,
    may_replace: Callable[[Path], str],
    superseded: Sequence[str] = (),
    message: str,
    private: bool = False,
    replace: bool = False,
) -> Pushed:
    """Commit files to a repository, which is made where there is none, all at once and on top of its history.

    A repository that holds something else is left as it is, unless ``replace``: anything beside what the Hub
    puts into a new one where there is no ``document``, and what ``may_replace`` says of the folder with it,
    if anything. Files of names that are ``superseded`` go. Raises CheckpointError as `fetch` does, and
    where one is not signed in or may not write there; then nothing of the files is there.
    """
    library = _library(name)
    api = library.HfApi(library_name="lsgm-bench")
    if library.get_token() is None:
        raise CheckpointError(f"{name} is written by whom the Hub knows; {_SIGN_IN}")
    parent, there = _standing(name, api, private)
    foreign = sorted(there - _OURS)
    if document in there and not replace:
        path = _ask(name, lambda: api.hf_hub_download(name.repo, document, revision=parent))
        if other := may_replace(Path(path).parent):
            raise CheckpointError(f"{name} holds {other}; {_OTHER_PLACE}")
    elif foreign and not replace:
        raise CheckpointError(f"{name} holds something else ({_some(foreign)}); {_OTHER_PLACE}")
    operations: list[Any] = [library.CommitOperationAdd(file, content) for file, content in files.items()]
    if document in there:
        gone = [file for file in superseded if file in there and file not in files]
        operations += [library.CommitOperationDelete(file) for file in gone]
    # One commit, so that whoever fetches meanwhile has one model; files go up before it, large ones in parts.
    done = _ask(
        name,
        lambda: api.create_commit(
            name.repo,
            operations,
            commit_message=message,
            revision=name.revision,
            parent_commit=parent,
        ),
    )
    return Pushed(f"{api.endpoint}/{name.repo}", done.oid, done.oid != parent)


_OTHER_PLACE = "give another name, or --replace to put this over it (its history keeps what was there)"


def _standing(name: HubName, api: Any, private: bool) -> tuple[str | None, frozenset[str]]:
    """Return the commit and the files of a repository, which is made where there is none."""
    try:
        info = _ask(name, lambda: api.model_info(name.repo, revision=name.revision))
    except _AbsentError:
        if name.revision:
            raise
        _ask(name, lambda: api.create_repo(name.repo, private=private))
        info = _ask(name, lambda: api.model_info(name.repo))
    return info.sha, frozenset(file.rfilename for file in info.siblings or ())


class _AbsentError(CheckpointError):
    """A repository that is not there, or not for whoever asks."""


def _library(name: HubName) -> Any:
    """Return huggingface_hub. Raises CheckpointError where it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError(
            f"{name} is on the Hugging Face Hub, for which huggingface_hub is needed ({said(error)}); "
            "pip install 'lsgm-bench[hub]'"
        ) from error
    return huggingface_hub


def _ask(name: HubName, what: Callable[[], T]) -> T:
    """Return what the Hub answers, and raise what it does not as one sentence."""
    from huggingface_hub import constants, errors

    try:
        return what()
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name} is given to those who accept its terms; accept them at "
            f"{constants.ENDPOINT}/{name.repo} and {_SIGN_IN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"hf://{name.repo} has no revision '{name.revision}'; give a branch, a tag or a whole commit"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise _AbsentError(f"{name} is not there, or is private: check the name, or {_SIGN_IN}") from error
    except errors.HFValidationError as error:
        raise CheckpointError(f"{name} names nothing on the Hub ({said(error)}); correct it") from error
    except errors.HfHubHTTPError as error:
        raise _refused(name, error) from error
    except ValueError as error:  # what the Hub finds wrong with the first lines of a card
        raise CheckpointError(f"{name}: the Hub does not take it ({said(error)}); correct it") from error
    except errors.OfflineModeIsEnabled as error:
        raise _UnreachableError(f"{name} cannot be asked for, as HF_HUB_OFFLINE is set; unset it") from error
    # A list of what libraries of the network raise would change with them: refused, reset, no such host.
    except Exception as error:
        where = f"{constants.ENDPOINT} is not reached"
        raise _UnreachableError(
            f"{name} cannot be asked for, as {where} ({said(error)}); check the network, or HF_ENDPOINT"
        ) from error


def _refused(name: HubName, error: Any) -> CheckpointError:
    """Return the error for an answer of the Hub that is none of those with a name."""
    status = error.response.status_code
    why = f"{status}: {said(Exception(error.server_message or getattr(error.response, 'reason_phrase', '')))}"
    if status in (401, 403):
        return CheckpointError(f"{name}: the Hub does not allow it ({why}); {_SIGN_IN} that may")
    if status == 409 or status == 412:
        return CheckpointError(f"{name} is there already, or has just changed ({why}); look, and try again")
    if status == 429 or status >= 500:
        return _UnreachableError(f"{name} cannot be asked for, as the Hub answers {why}; try again later")
    return CheckpointError(f"{name}: the Hub answers {why}; check the name")


def _some(names: Any) -> str:
    listed = sorted(names)
    few = ", ".join(shown(name)[:60] for name in listed[:3])
    return f"{few} and {len(listed) - 3} more" if len(listed) > 3 else few or "it is empty"
