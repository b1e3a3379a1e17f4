"""``lsgm fid``: how far one set of images is from another."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction

from lsgm.config import SamplerConfig, require
from lsgm.files.names import shown
from lsgm.logs import log
from lsgm.options import Positional, arg, parse

HELP = "two sets of images, or statistics: FID by both protocols, KID, precision, recall, sFID"

DESCRIPTION = """Measure how far SAMPLES are from REFERENCE: FID by torch-fidelity's and by clean-fid's
protocol, KID, precision and recall with their 95 % intervals, and sFID.

Either side is a folder, zip, npz or npy of images, a run directory or checkpoint (its images are drawn), a
data set and split such as cifar10:train, or an npz of mu and sigma. All images of both are taken, unless
--images says how many."""

EXAMPLES = (
    "lsgm fid ./real ./generated",
    "lsgm fid cifar10:train samples.npz",
    "lsgm fid cifar10:train runs/mine --images 50000 --sampler.name dopri5",
    "lsgm fid VIRTUAL_imagenet256_labeled.npz samples.npz   # ADM's statistics: FID and sFID to them",
    "lsgm fid ./real ./generated --images 5000 --seed 1     # a uniform subset of either side",
    "lsgm fid ./real ./generated --extractor export:mine.pt2 --json",
    "lsgm fid ./real mine=./generated --out results/mine && lsgm report results/mine",
)


@dataclass(frozen=True)
class FidOptions:
    """FidOptions of ``lsgm fid``."""

    reference: Annotated[Positional[str], arg(metavar="REFERENCE")]
    """What is compared with; the intervals take it as fixed."""
    samples: Annotated[Positional[str], arg(metavar="SAMPLES")]
    """What is measured; NAME= before it names it."""
    images: int | None = None
    """Take a uniform subset of so many images of either side; of a model draw so many."""
    reference_images: str = ""
    """The same of the reference alone: a number, or all."""
    seed: int = 0
    """Of the subsets."""
    extractor: UseAppendAction[tuple[str, ...]] = ()
    """Feature space: inception, inception-clean (default: both), export:FILE.pt2, torchscript:FILE,
    dinov2:DIR[:MODEL] or glyphs; may be repeated. Only the official Inceptions give FID. torchscript:,
    dinov2: and inception-clean:FILE run what is in their files: name only those that you trust; export: and
    inception:FILE take numbers from theirs and run nothing else."""
    out: Path | None = None
    """Folder for results.jsonl and a manifest, which `lsgm report` reads."""
    batch_size: int = 64
    """Images at a time; no number depends on it but for rounding."""
    workers: int = 0
    """Image files that are decoded at once; 0: as many as there are cores. No number depends on it."""
    convert: str = ""
    """Allow files that are not plain 8-bit greyscale or RGB: words such as grey,palette,alpha, or all."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    json: bool = False
    """Print the rows as JSON lines on standard output instead of a table."""
    first_seed: int = 0
    """A model's image k is drawn from seed first-seed + k alone."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        known = self.reference_images in ("", "all") or self.reference_images.isdecimal()
        require(known, f"reference-images is '{self.reference_images}'; give a number, or all")


def run(argv: list[str]) -> int:
    """Measure and print; 0 where there is at least one distance."""
    options = parse(FidOptions, argv, prog="lsgm fid", description=DESCRIPTION, examples=EXAMPLES)
    from lsgm.data import parse_convert
    from lsgm.data.decoding import set_workers
    from lsgm.devices import pick_device
    from lsgm.distributed import join
    from lsgm_eval.cache import claim_results
    from lsgm_eval.run.manifest import words_of
    from lsgm_eval.two_sides.call import Settings, compare

    word = options.reference_images
    settings = Settings(
        options.images,
        "all" if word == "all" else int(word) if word else None,
        options.seed,
        options.extractor,
        options.batch_size,
        options.first_seed,
        options.sampler,
    )
    parse_convert(options.convert)  # a slip is told before anything is read
    set_workers(options.workers)
    if options.out is not None:
        claim_results(options.out)
    world = join(pick_device(options.device))
    plain = replace(options, out=None, json=False, workers=0)
    found = compare(
        options.reference,
        options.samples,
        settings,
        world,
        convert=options.convert,
        out=options.out,
        command=["lsgm", "fid", *argv],
        again=["lsgm", "fid", *words_of(plain, "reference", "samples")],
    )
    if not world.main:
        return 0
    if options.json:
        for row in found.rows:
            print(json.dumps(row.as_dict(), allow_nan=False))
    else:
        lines = [f"{found.samples} against {found.reference}", "", *found.table(), "", *found.notes()]
        print("\n".join(map(shown, lines)))
    for why in found.not_measured:
        log.warning(f"not measured: {why}")
    if options.out is not None:
        log.info(f"rows in {options.out / 'results.jsonl'}")
    return 0
