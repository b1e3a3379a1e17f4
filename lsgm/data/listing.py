"""Which files a folder or zip of images has: what counts, what does not, and one line that says so."""

from __future__ import annotations

import errno
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lsgm.data.imagefile import reading
from lsgm.errors import DataError
from lsgm.files.limits import IMAGE_FILE, IMAGES
from lsgm.files.names import shown
from lsgm.files.regular import open_zip, read_bytes, read_member
from lsgm.progress import warn

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Names that promise an image, in any case; every such file is one or is an error."""
_LITTER = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found",
           "thumbs.db", "ehthumbs.db", "desktop.ini")  # fmt: skip
"""What file managers and disks leave behind, in lower case."""
_NOTES = (".pass", ".samples.jsonl")
"""What `lsgm.sampling.keep` and `lsgm sample` note of the images in a folder: left out without a word."""
_METHODS = {
    9: "Deflate64", 93: "Zstandard", 95: "XZ", 97: "WavPack", 98: "PPMd", 99: "AES",
}  # fmt: skip
_READ = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_KINDS_SHOWN = 6


class ImageFile(NamedTuple):
    """A file of a set: its name inside the folder or zip, its size in bytes, and how to get its bytes.

    Attributes:
        name: Path with slashes below the folder or the zip's top; what `Listing` sorts by.
        size: Bytes, as the folder or zip states them.
        read: Returns the bytes.
        stamp: Dates of change in nanoseconds, device, inode and size of a file in a folder.
        real: The file's true place where a linked folder may lead to it twice.
    """

    name: str
    size: int
    read: Callable[[], bytes]
    stamp: tuple[int, ...] = ()
    real: str = ""


@dataclass
class Listing:
    """The image files of a folder or zip in order of name, and what lies beside them.

    Attributes:
        path: The folder or zip.
        what: ``a folder`` or ``a zip``.
        files: Sorted by name as text (``10.png`` before ``9.png``), the same for a folder and its zip.
        wrapper: Folders around every image, which are no part of the names.
        left_out: Reason -> the names that it keeps out.
    """

    path: Path
    what: str
    files: list[ImageFile] = field(default_factory=list)
    wrapper: tuple[str, ...] = ()
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Note that ``name`` does not count."""
        if PurePosixPath(name).name in _NOTES:
            return
        self.left_out.setdefault(reason, []).append(name)

    def label(self, name: str) -> str:
        """Return what an error calls a file of this set."""
        return f"{self.path}: {shown(name)}"

    def place(self, file: ImageFile) -> str:
        """Return where a file lies below the path, the folders around everything included."""
        return "/".join((*self.wrapper, file.name))

    def remark(self) -> str:
        """Return what is left out with counts and one example each, or an empty string.

        Files of suffixes that are not read are counted by suffix, the most frequent ones first.
        """
        unread = self.left_out.get("", [])
        kinds: dict[str, list[str]] = {}
        for name in unread:
            suffix = PurePosixPath(name).suffix.lower()
            kinds.setdefault(suffix or "without a suffix", []).append(name)
        ranked = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
        parts = [f"{len(names):,} {kind} ({shown(names[0])})" for kind, names in ranked[:_KINDS_SHOWN]]
        if rest := sum(len(names) for _, names in ranked[_KINDS_SHOWN:]):
            parts.append(f"{rest:,} of other kinds")
        groups = [f"files not read: {', '.join(parts)}"] if parts else []
        named = ((reason, names) for reason, names in self.left_out.items() if reason)
        groups += [f"{reason}: {len(names):,} ({shown(names[0])})" for reason, names in named]
        return f"left out are {'; '.join(groups)}" if groups else ""

    def say(self) -> None:
        """Say on standard error, once, what is left out, where anything is."""
        remark = self.remark()
        if remark and (line := f"{self.path}: {remark}") not in _SAID:
            _SAID.add(line)
            warn(line)


_SAID: set[str] = set()


def hidden(name: str) -> bool:
    """Return whether a name never counts: a part of it begins with a dot, or is a file manager's litter."""
    return any(_hidden(part) for part in name.split("/") if part not in ("", "."))


def _hidden(part: str) -> bool:
    return part.startswith(".") or part.lower() in _LITTER


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def holds_images(path: Path) -> bool:
    """Return whether a folder holds a file with an image's suffix at any depth, hidden ones apart."""
    listing = Listing(path, "a folder")
    return any(True for _ in _walk(listing))


def list_files(path: Path) -> Listing:
    """Return the image files of a folder (searched with its sub-folders) or of a zip.

    Hidden files and folders never count. Links are followed: to a file under the link's own name, to a folder
    as if its content lay there, unless it leads back to a folder above itself. Names have no folders that are
    around everything. What is left out is noted (`Listing.say`); nothing is read yet.

    Raises DataError for a path that is neither, a damaged zip, one with encrypted, repeated or outlandish
    members or compressed in a way that Python does not know, and where there is no image, naming what is.
    """
    with reading(shown(str(path))):
        listing = _listed(path)
    if not listing.files:
        raise DataError(_nothing(listing))
    listing.files.sort(key=lambda file: file.name)
    _unwrap(listing)
    most = IMAGE_FILE.value
    for file in listing.files:
        if file.size > most:
            IMAGE_FILE.hold(listing.label(listing.place(file)), file.size)
    return listing


def _listed(path: Path) -> Listing:
    """Return what a folder or zip has, in any order."""
    if path.is_dir():
        listing = Listing(path, "a folder")
        listing.files = list(_walk(listing))
        return listing
    if not path.exists():
        raise DataError(f"{path} does not exist: give a folder, zip, npz or npy of images")
    if not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path} is no regular file: give a folder, zip, npz or npy of images")
    if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        listing = Listing(path, "a zip")
        listing.files = list(_members(listing))
        return listing
    raise DataError(f"{path} is neither a folder nor a zip, npz or npy: give one of these with images in it")


def list_one(path: Path) -> Listing:
    """Return a single image file as a set. Raises DataError where it cannot be looked at."""
    with reading(str(path)):
        size = path.stat().st_size
    IMAGE_FILE.hold(shown(str(path)), size)
    return Listing(path.parent, "a file", [ImageFile(path.name, size, partial(read_bytes, path, IMAGE_FILE))])


def _nothing(listing: Listing) -> str:
    arrays = [n for n in listing.left_out.get("", []) if n.lower().endswith((".npz", ".npy", ".zip"))]
    advice = f"give {shown(arrays[0])} itself" if arrays else f"put {', '.join(SUFFIXES)} files there"
    remark = listing.remark()
    said = f"has no image in it; {remark}" if remark else "is empty: it has no image in it"
    return f"{listing.path} {said}: {advice}"


def _unwrap(listing: Listing) -> None:
    """Take the folders around every image off the names, so that a zip of a folder is the same set."""
    first, last = (PurePosixPath(file.name).parts[:-1] for file in (listing.files[0], listing.files[-1]))
    # What the first and the last in order share, all between them share, too.
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    common = [part for part, _ in same]
    if not common:
        return
    listing.wrapper = tuple(common)
    skip = len("/".join(common)) + 1
    listing.files = [ImageFile(f.name[skip:], f.size, f.read, f.stamp, f.real) for f in listing.files]


# ---- folders


@dataclass(frozen=True)
class _Place:
    """A folder on the way: its name below the top, its true place, those above it, and whether a link led."""

    name: str
    real: str
    above: frozenset[str]
    linked: bool


def _walk(listing: Listing) -> Iterator[ImageFile]:
    """Yield the image files below a folder, any order, and note the rest."""
    real = os.path.realpath(listing.path)
    seen, places, count = {real}, [_Place("", real, frozenset([real]), False)], 0
    most = IMAGES.value
    while places:
        place = places.pop()
        with reading(listing.label(place.name) if place.name else str(listing.path)):
            found = sorted(os.scandir(place.real), key=lambda entry: entry.name)
        for entry in found:
            name = f"{place.name}/{entry.name}" if place.name else entry.name
            try:
                met = _visit(listing, entry, name, place, seen)
            except Exception:
                with reading(listing.label(name)):
                    raise
            if isinstance(met, _Place):
                places.append(met)
            elif met is not None:
                count += 1
                if count > most:
                    IMAGES.hold(shown(str(listing.path)), count)
                yield met


def _visit(
    listing: Listing, entry: os.DirEntry[str], name: str, place: _Place, seen: set[str]
) -> _Place | ImageFile | None:
    """Return a sub-folder to be searched or an image file; note in the listing what is neither."""
    try:
        about = entry.stat()
    except OSError as error:
        if not (_hidden(entry.name) or error.errno in (errno.ENOENT, errno.ELOOP)):
            raise
        listing.leave_out("hidden files" if _hidden(entry.name) else "links that lead nowhere", name)
        return None
    if stat.S_ISDIR(about.st_mode):
        return _folder(listing, entry, name, place, seen)
    path = os.path.join(place.real, entry.name)
    if _hidden(entry.name):
        listing.leave_out("hidden files", name)
    elif not stat.S_ISREG(about.st_mode):
        listing.leave_out("no regular files", name)
    elif not _is_image(entry.name):
        listing.leave_out("", name)
    else:
        stamp = (about.st_mtime_ns, about.st_ctime_ns, about.st_dev, about.st_ino, about.st_size)
        return ImageFile(name, about.st_size, partial(read_bytes, path, IMAGE_FILE), stamp, path)
    return None


def _folder(
    listing: Listing, entry: os.DirEntry[str], name: str, place: _Place, seen: set[str]
) -> _Place | None:
    if _hidden(entry.name):
        listing.leave_out("hidden folders", name)
        return None
    link = entry.is_symlink()
    real = os.path.realpath(entry.path) if link else os.path.join(place.real, entry.name)
    if real in place.above:
        listing.leave_out("links to a folder above themselves", name)
        return None
    # Inside a linked folder no link is followed to where one has been, so that folders full of links to each
    # other come to an end; elsewhere every name of a folder is kept until `once` knows which names matter.
    if link and place.linked and real in seen:
        listing.leave_out("links to a folder that is read already", name)
        return None
    seen.add(real)
    return _Place(name, real, place.above | {real}, place.linked or link)


def once(listing: Listing, files: Sequence[ImageFile]) -> list[ImageFile]:
    """Return the files without those that a linked folder repeats; the first name of each is kept.

    A link to a single file is an image of its own, as a copy would be. What goes is noted in the listing.
    """
    kept: list[ImageFile] = []
    seen: set[str] = set()
    for file in files:
        if file.real and file.real in seen:
            listing.leave_out("reached again through a linked folder", listing.place(file))
            continue
        seen.add(file.real)
        kept.append(file)
    return kept


# ---- zips


def _members(listing: Listing) -> Iterator[ImageFile]:
    """Yield the image files of a zip and note the rest."""
    with reading(str(listing.path)):
        archive = open_zip(listing.path)
    infos = [info for info in archive.infolist() if not info.filename.endswith(("/", "\\"))]
    IMAGES.hold(shown(str(listing.path)), len(infos))
    members = [(_clean(info.filename, listing), info) for info in infos]
    members.sort(key=lambda member: member[0])
    for name, times in Counter(name for name, _ in members if not hidden(name)).items():
        if times > 1:
            raise DataError(f"{listing.label(name)} is there {times} times: pack the zip again")
    folders = set()
    for name, info in members:
        if hidden(name):
            parts = PurePosixPath(name).parts
            at = next(k for k, part in enumerate(parts) if _hidden(part))
            if at == len(parts) - 1:
                listing.leave_out("hidden files", name)
            elif (folder := "/".join(parts[: at + 1])) not in folders:
                folders.add(folder)
                listing.leave_out("hidden folders", folder)
        elif stat.S_ISLNK(info.external_attr >> 16):
            listing.leave_out("links inside a zip", name)
        elif not _is_image(name):
            listing.leave_out("", name)
        else:
            _refuse(info, listing.label(name))
            label = listing.label(name)
            yield ImageFile(name, info.file_size, partial(read_member, archive, info, label, IMAGE_FILE))


def _clean(name: str, listing: Listing) -> str:
    """Return a member's name with slashes and no empty parts; refuse one that leads out of the zip."""
    name = name.replace("\\", "/")  # as some Windows programs write them
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
        raise DataError(
            f"{listing.label(name)} has a name that leads out of the zip: pack the images again with names "
            "below one folder"
        )
    plain = not {"", "."} & set(name.split("/"))  # of a million names most are
    return name if plain else PurePosixPath(name).as_posix()


def _refuse(info: zipfile.ZipInfo, label: str) -> None:
    if info.flag_bits & 1:
        raise DataError(f"{label} cannot be read (it is encrypted): unpack the zip and give the folder")
    if info.compress_type not in _READ:
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise DataError(
            f"{label} cannot be read (it is compressed by {method}): pack the zip again by deflate"
        )
