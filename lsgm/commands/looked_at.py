"""What commands share that look at images through a model: the images, the place, a picture, an npz."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lsgm.config import require
from lsgm.errors import UserError
from lsgm.files.names import file_name
from lsgm.files.write import atomic_path, claim
from lsgm.options import Positional, arg

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from lsgm.trained import Model


@dataclass(frozen=True)
class LookOptions:
    """Options of a command that looks at images through a model."""

    model: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, one of its checkpoints, or hf://OWNER/NAME of the Hub."""
    images: Annotated[Positional[str], arg(metavar="IMAGES")]
    """A dataset and its split (glyphs:test), or a folder, zip, npz or npy of images, which are cropped and
    reduced to the model's size."""
    limit: int = 16
    """Images, a uniform subset that is the first of a larger one."""
    seed: int = 0
    """Of the pixels of a binary set, and of the latents: image k has the noise of seed + k."""
    mean: bool = False
    """Take the posterior's mean in place of a draw, and show binary pixels as probabilities."""
    out: Path | None = None
    """Write OUT.png and OUT.npz; unless given, the model's name and the command's."""
    convert: str = ""
    """What is allowed for images that are not plain greyscale or RGB (all, ...)."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    json: bool = False
    """Print what was written as one JSON line on standard output."""

    def __post_init__(self) -> None:
        require(self.limit >= 1, f"limit is {self.limit}; ask for at least 1 image")
        require(self.seed >= 0, f"seed is {self.seed}; it must be at least 0")

    def opened(self, command: str) -> tuple[Model, Place]:
        """Return the model, and the place to write to, which holds nothing yet.

        Raises CheckpointError for no model, UserError where a file would be lost.
        """
        from lsgm.trained import load

        model = load(self.model.expanduser(), device=self.device)
        return model, Place.of(self.out, f"{file_name(model.name)}-{command}")

    def read(self, model: Model, count: int) -> Tensor:
        """Return ``count`` images for the model, uint8 [N, C, H, W], or as many as there are."""
        from lsgm.pictures import images

        _, height, width = model.pixels.shape
        found = images(self.images, limit=count, size=(height, width), seed=self.seed, convert=self.convert)
        if model.pixels.kind == "binary" and found.shape[1] == 1:
            found = (found > 127).to(found.dtype) * 255
        return found


@dataclass(frozen=True)
class Place:
    """Two files of one name."""

    picture: Path
    arrays: Path

    @classmethod
    def of(cls, out: Path | None, default: str) -> Place:
        """Return the files that ``out`` names. Raises UserError where one of them is there."""
        base = claim(Path(default) if out is None else out.expanduser())
        if base.suffix.lower() in (".png", ".npz"):
            base = base.with_suffix("")
        place = cls(base.with_name(f"{base.name}.png"), base.with_name(f"{base.name}.npz"))
        for path in (place.picture, place.arrays):
            if path.exists():
                raise UserError(f"{path} is there already; remove it, or name another place by --out")
        return place

    def write(self, picture: Image, arrays: dict[str, NDArray[Any]], said: dict[str, Any] | None) -> None:
        """Write both files, and say where they are: a sentence, or a JSON line of what is ``said``."""
        import numpy as np

        with atomic_path(self.arrays) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        with atomic_path(self.picture) as temporary:
            picture.save(temporary, format="PNG")
        if said is None:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
            print(f"{self.picture} and {self.arrays} ({shapes})")
        else:
            print(json.dumps({**said, "picture": str(self.picture), "arrays": str(self.arrays)}))


def as_files_have(images: Tensor) -> NDArray[Any]:
    """Return images [..., C, H, W] with channels last, as an npz of images has them."""
    array: NDArray[Any] = images.movedim(-3, -1).contiguous().numpy()
    return array
