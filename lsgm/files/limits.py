"""How large a file may be before it is refused: bounds that honest files keep, each raised by a variable.

A command on any file that these let pass needs less than 2 GiB of memory beyond what its own work takes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from lsgm.errors import ConfigError, DataError, UserError


@dataclass(frozen=True)
class Limit:
    """A largest number of something, which an environment variable raises."""

    variable: str
    default: int
    unit: str = "bytes"

    @property
    def value(self) -> int:
        """The limit that holds. Raises ConfigError where the variable is no whole number above 0."""
        given = os.environ.get(self.variable, "").strip()
        if not given:
            return self.default
        if not (given.isascii() and given.isdecimal() and len(given) < 19 and int(given) > 0):
            raise ConfigError(f"{self.variable} is '{given[:40]}'; give a whole number of {self.unit}")
        return int(given)

    def hold(self, where: object, count: int, error: type[UserError] = DataError) -> None:
        """Raise ``error`` where ``where`` has more than the limit."""
        if count > self.value:
            raise error(
                f"{where} has {count:,} {self.unit}, and at most {self.value:,} are read; if you know where "
                f"it comes from, set {self.variable}={count}"
            )

    def allow(self, name: str, value: int) -> None:
        """Raise ConfigError where the setting of that name is above the limit: a slip, or worse."""
        if value > self.value:
            raise ConfigError(
                f"{name} is {value}, and more than {self.value} is taken for a slip; give less, or set "
                f"{self.variable}={value}"
            )


DOCUMENT = Limit("LSGM_LARGEST_JSON", 32 * 2**20)
"""One JSON document: memory is some twenty times as much."""
TABLES = Limit("LSGM_LARGEST_TOML", 2**20)
"""One TOML document, which is read slowly."""
LINES = Limit("LSGM_LARGEST_LOG", 128 * 2**20)
"""A log of JSON lines."""
ARRAYS = Limit("LSGM_LARGEST_ARRAYS", 2**30)
"""What the arrays of one file hold once unpacked."""
WEIGHTS = Limit("LSGM_LARGEST_WEIGHTS", 2**33)
"""One file of weights or of optimiser states; both are also held against the model that they are for."""
PICKLE = Limit("LSGM_LARGEST_PICKLE", 2**22)
"""What stands beside the tensors of a file of optimiser states."""

# What a recipe, a checkpoint's description of its model, or an option asks for.
MODEL = Limit("LSGM_LARGEST_MODEL", 10**9, "numbers")
"""Parameters and buffers of a model's networks; the largest published recipe has 7e8."""
LAYERS = Limit("LSGM_MOST_LAYERS", 10_000, "layers")
"""Modules of a model's networks; the largest published recipe has 3,000."""
SIZE = Limit("LSGM_LARGEST_SIZE", 2**16, "units")
"""Any one size of a network: its width, its blocks, its latents, a side of its images."""
IMAGE = Limit("LSGM_LARGEST_IMAGE", 2**22, "sub-pixels")
"""One image of a model: 1182 x 1182 in colour."""
BATCH = Limit("LSGM_LARGEST_BATCH", 2**16, "images")
"""A batch."""
DRAWS = Limit("LSGM_MOST_DRAWS", 10**6, "draws")
"""Draws, probes or times of each image."""
STEPS = Limit("LSGM_MOST_STEPS", 10**6, "steps")
"""Steps of a sampler or of a solver, whose times are kept."""

# Of data sets and their files.
DATASET_FILE = Limit("LSGM_LARGEST_DATASET_FILE", 512 * 2**20)
"""One file of a published dataset, unpacked."""
DOWNLOAD = Limit("LSGM_LARGEST_DOWNLOAD", 2 * 2**30)
"""One file from the network."""
IMAGES = Limit("LSGM_LARGEST_SET", 4_000_000, "images")
"""Of one set: each takes some two hundred bytes of memory."""
IMAGE_FILE = Limit("LSGM_LARGEST_IMAGE_FILE", 256 * 2**20)
"""One file of an image."""
IMAGE_PIXELS = Limit("LSGM_LARGEST_PICTURE", 2**26, "pixels")
"""One image: a picture of 8192 x 8192, which takes a fifth of a GB for each copy that decoding makes."""
ZIP_LISTING = Limit("LSGM_LARGEST_ZIP_LISTING", 64 * 2**20)
"""What a zip says of its members, some hundred bytes for each."""

# Of networks of features and what they gave.
STATISTICS = Limit("LSGM_LARGEST_STATISTICS", 2**28)
"""Means and covariances of one file: 5,700 features in float64, of which a distance takes several copies."""
NETWORK = Limit("LSGM_LARGEST_NETWORK", 2**29)
"""A network of features in one file, unpacked or not: of its bytes opening takes up to three copies."""
FEATURES = Limit("LSGM_MOST_FEATURES", 8192, "features")
"""Of an image, by a network of one's own: several matrices of D x D in float64 are made of them."""
ACTIVATIONS = Limit("LSGM_LARGEST_ACTIVATIONS", 2**30)
"""What a network of one's own holds at once while it makes features of a few images."""

# What comes from elsewhere.
FOREIGN = Limit("LSGM_LARGEST_FOREIGN_PICKLE", 64 * 2**20)
"""What another code's pickle says beside the tensors, which may be of any size."""
INSTRUCTIONS = Limit("LSGM_MOST_INSTRUCTIONS", 2_000_000, "instructions or entries")
"""Instructions of a checkpoint's pickle, some forty a tensor, and entries of what they unfold into."""
UNPACKED = Limit("LSGM_LARGEST_UNPACKED", 2**30)
"""What the compressed parts of a checkpoint hold once unpacked; torch itself compresses none."""
HEADER = Limit("LSGM_LARGEST_HEADER", 16 * 2**20)
"""The list of tensors at the head of a safetensors file, some hundred bytes each."""
GOLDEN = Limit("LSGM_LARGEST_GOLDEN", 2**28)
"""Reference values of `lsgm conformance`: of a few images, which the model is run on."""

# Of reports.
RESULTS = Limit("LSGM_LARGEST_RESULTS", 128 * 2**20)
"""A file of result rows, which is read line by line."""
ROWS = Limit("LSGM_MOST_ROWS", 100_000, "rows")
"""Result rows that one command takes: a page of them is some 5 kB each."""
CELLS = Limit("LSGM_LARGEST_TABLE", 1_000_000, "places")
"""Lines times columns of one table of a report."""
LOGGED = Limit("LSGM_MOST_LOGGED", 500_000, "lines")
"""Lines of the log of one training."""
PICTURES = Limit("LSGM_LARGEST_PAGE", 64 * 2**20)
"""The pictures of one page, which holds them as text."""
