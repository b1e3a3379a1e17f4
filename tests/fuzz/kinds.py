"""Every kind of file that a command reads, an entry each: what is mutated, how, and which commands read it.

A word list is a command line that runs in the folder of the input; ``call:NAME`` is a reader of `readers` for
files of the package that no command line names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hypothesis import strategies as st

from fuzz import arrays, octets, of_images, of_models, of_results, pickles, pictures, tensors, trees, zips
from fuzz.draws import Draws
from fuzz.kind import Kind, Mutation
from fuzz.places import PLACES
from fuzz.sandbox import Case, Edit

__all__ = ["KINDS", "cases"]

BY_ENDING: Mapping[str, Mutation] = {
    ".json": trees.json_file,
    ".jsonl": trees.lines_file,
    ".toml": trees.toml_file,
    ".npz": arrays.npz_file,
    ".npy": arrays.npy_file,
    ".safetensors": tensors.safetensors_file,
    ".pt": pickles.torch_file,
    ".pth": pickles.torch_file,
    ".ts": zips.zip_file,
    ".pt2": zips.zip_file,
    ".zip": zips.zip_file,
    ".png": pictures.png_file,
    ".tiff": pictures.tiff_file,
}
"""How a file is changed by its structure; others by their bytes."""


KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (*of_results.ENTRIES, *of_models.ENTRIES, *of_images.ENTRIES)
}


def cases(kind: Kind, world: Mapping[str, Path]) -> st.SearchStrategy[Case]:
    """Return the inputs of a kind."""

    @st.composite
    def one(draw: st.DrawFn) -> Case:
        draws = Draws(draw)
        names = _files(kind, world)
        chosen = [draws.pick(names)]
        if len(names) > 1 and draws.chance(10):
            chosen.append(draws.pick([name for name in names if name != chosen[0]]))
        edits = tuple(_edit(kind, name, _specimen(name, world), draws) for name in chosen)
        sealed = kind.seal is not None and draws.chance(70)
        return Case(kind.name, kind.parts, edits, tuple(draws.pick(kind.commands).split()), kind.outs, sealed)

    return one()


def _edit(kind: Kind, name: str, content: bytes, draws: Draws) -> Edit:
    way = draws.whole(1, 100)
    if way > 92:
        return Edit(name, place=draws.pick(list(PLACES)))
    if way > 78:
        return Edit(name, octets.any_file(content, draws))
    mutation = kind.mutation or BY_ENDING.get(Path(name).suffix, octets.any_file)
    try:
        return Edit(name, mutation(content, draws))
    except (
        ValueError,
        KeyError,
        IndexError,
        OverflowError,
        TypeError,
        AttributeError,
        RuntimeError,
        MemoryError,
    ):
        # A change that the format's own writer refuses is no input.
        return Edit(name, octets.any_file(content, draws))


def _root(name: str, world: Mapping[str, Path]) -> tuple[Path, str]:
    """Return the folder of the world that a pattern is below of, and the pattern there."""
    return (
        (world["cache"].parent, name.removeprefix("../"))
        if name.startswith("../cache")
        else (next(iter(world.values())).parent, name)
    )


def _files(kind: Kind, world: Mapping[str, Path]) -> list[str]:
    found = []
    for pattern in kind.files:
        root, below = _root(pattern, world)
        prefix = "../" if pattern.startswith("../") else ""
        found += [prefix + str(path.relative_to(root)) for path in sorted(root.glob(below)) if path.is_file()]
    if not found:
        raise LookupError(f"the kind '{kind.name}' has no file {', '.join(kind.files)} in the world")
    return found


def _specimen(name: str, world: Mapping[str, Path]) -> bytes:
    root, below = _root(name, world)
    return (root / below).read_bytes()
