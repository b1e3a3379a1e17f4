"""``lsgm sample``: images of a trained model, written as they are drawn; the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from lsgm.config import Execution, SamplerConfig, require, require_seeds
from lsgm.files.names import file_name
from lsgm.files.write import claim
from lsgm.logs import log
from lsgm.options import Positional, arg, given_options, parse

if TYPE_CHECKING:
    from lsgm.distributed import World
    from lsgm.generative import GenerativeModel
    from lsgm.sampling.keep import Output
    from lsgm.sampling.record import Identity, Record

HELP = "draw images from a checkpoint into a folder or npz; interrupt it, and the same command goes on"

DESCRIPTION = """Draw images from a checkpoint, one for each seed, and write them as they are drawn.

The place that is printed at the end holds the images and nothing else that counts as one: it can be measured
as it is (`lsgm eval TASK --model PLACE`). Beside it lie PLACE.sheet.png, a picture of the first 100 images at
most, and PLACE.json, a manifest: model, sha256 of its weights, sampler, seeds, network evaluations, seconds.

Interrupt it at any moment; the same command goes on where it stopped, and a larger --n draws what is missing.
Images of another model or sampler are never overwritten. `torchrun --nproc-per-node 2 -m -- lsgm sample ...`
shares the work (the -- keeps torchrun from taking --n for one of its own options)."""

EXAMPLES = (
    "lsgm sample runs/glyphs",
    "lsgm sample runs/glyphs --n 256 --sampler.name dopri5 --sampler.rtol 1e-5",
    "lsgm sample checkpoints/glyphs-lsgm --n 50000 --out pictures      # pictures/000000.png ...",
    "lsgm sample runs/glyphs --n 50000 --first-seed 1000 --format npz --out pictures.npz",
)

SHEET = 100
"""Images on the sheet, at most."""


@dataclass(frozen=True)
class SampleOptions:
    """Options of `lsgm sample`."""

    model: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, one of its checkpoints, or hf://OWNER/NAME of the Hub."""
    n: int = 64
    """Number of images."""
    first_seed: int = 0
    """Image k is drawn from seed first-seed + k alone."""
    batch: int | Literal["auto"] = 64
    """Images drawn at once by each process; it changes nothing but the speed. auto tries which is fastest of
    those that memory is enough for."""
    out: Path | None = None
    """Folder, or file of .npz, to write to. Unless given, a name made of model, sampler and a hash of both,
    in RUN/samples, or in ./samples for a checkpoint that lies outside of a run."""
    format: Literal["auto", "png", "npz"] = "auto"
    """A folder of PNGs named by their seeds, or one npz, arr_0 uint8 [n, height, width, channels] in the
    order of the seeds; auto takes npz where --out ends with it, else png."""
    images: bool = True
    """Images are always written; earlier versions wrote them only when this was given."""
    execution: Execution = "eager"
    """How the score network runs: eager; compiled, by torch.compile, which changes roundings; graphs,
    recorded as CUDA graphs, bit for bit as eager on a GPU; compiled-graphs, both."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    json: bool = False
    """Print what was done as one JSON line on standard output."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        require(self.n >= 1, f"n is {self.n}; ask for at least 1 image")
        require(self.batch == "auto" or self.batch >= 1, f"batch is {self.batch}; it must be at least 1")
        require_seeds(self.first_seed, self.n, "first-seed")
        require(
            self.images,
            "no-images has no meaning any more, because images are written as they are drawn; leave it out",
        )
        require(
            self.format != "png" or not self._names_npz,
            f"format is png and out is {self.out}; name a folder, or leave --format out",
        )

    @property
    def seeds(self) -> range:
        """The seeds of the images."""
        return range(self.first_seed, self.first_seed + self.n)

    @property
    def npz(self) -> bool:
        """Whether the images go into one npz."""
        return self._names_npz or self.format == "npz"

    @property
    def _names_npz(self) -> bool:
        return self.out is not None and self.out.suffix.lower() == ".npz"


def run(argv: list[str]) -> int:
    """Draw the images, write them, and say where they are; 130 and 143 are the status of an interruption."""
    options = parse(SampleOptions, argv, prog="lsgm sample", description=DESCRIPTION, examples=EXAMPLES)
    from lsgm.devices import pick_device
    from lsgm.distributed import join
    from lsgm.model.running import settle
    from lsgm.runs.checkpoint import find_checkpoint
    from lsgm.runs.load import load_model
    from lsgm.sampling import check_options

    check_options(options.sampler, given=given_options(argv, "sampler"))
    checkpoint = find_checkpoint(options.model.expanduser())
    world = join(pick_device(options.device))
    model = load_model(checkpoint, device=world.device)
    job = _Drawing.of(
        options, model, checkpoint, world, settle([model], options.execution, options.batch, world)
    )
    stopped = job.draw()
    if world.main:
        job.tell(stopped)
    return stopped and 128 + stopped


class _Stopped(KeyboardInterrupt):
    """Ended by a signal other than Ctrl-C."""


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end what is going on as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise _Stopped

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class _Drawing:
    """The images of one command: what draws them, where they go, and which of them are there."""

    options: SampleOptions
    model: GenerativeModel
    world: World
    place: Path
    output: Output
    record: Record
    batch: int

    @classmethod
    def of(
        cls, options: SampleOptions, model: GenerativeModel, checkpoint: Path, world: World, batch: int
    ) -> _Drawing:
        from lsgm.sampling.keep import open_output
        from lsgm.sampling.record import Identity, Record

        identity = Identity(
            model.name,
            model.sha256,
            options.sampler if model.has_prior else None,
            options.sampler.temperature,
            options.first_seed if options.npz else None,
        )
        place = _place(options, checkpoint, identity)
        note = place.with_name(f".{place.name}.samples.jsonl") if options.npz else place / ".samples.jsonl"
        output = open_output(place, identity.key, options.seeds, model.pixels, digits=6)
        return cls(options, model, world, place, output, Record(note, identity, place), batch)

    @property
    def sheet(self) -> Path:
        """A picture of the first images."""
        return self.place.with_name(f"{self.place.name}.sheet.png")

    @property
    def manifest(self) -> Path:
        """What the place holds and where it comes from."""
        return self.place.with_name(f"{self.place.name}.json")

    def draw(self) -> int:
        """Draw and write what is missing; return the number of the signal that ended it early, or 0."""
        with ExitStack() as stack:
            self.world.on_main(lambda: self._enter(stack))
            if self.world.main:
                stack.callback(self._leave)
            stopped = 0
            try:
                with _stoppable():
                    self._go_on()
            except _Stopped:
                stopped = signal.SIGTERM
            except KeyboardInterrupt:
                stopped = signal.SIGINT
            if not stopped:
                self.world.on_main(self.output.finish)
                self.world.on_main(self._describe)
            elif self.world.main:
                self._describe()
        return stopped

    def _enter(self, stack: ExitStack) -> None:
        """See that the place is free or holds these very images, and take up what is there."""
        self.record.check()
        self._refuse_foreign()
        # A folder says itself which images it holds; of an npz the record does.
        whole = self.options.npz and all(seed in self.record.costs for seed in self.options.seeds)
        kept = self.output.prepare(range(self.options.n) if whole else ())
        stack.enter_context(self.record.open(fresh=not kept))

    def _leave(self) -> None:
        """Take away the place that was made for images of which there is none, as of a sampler's mistake."""
        if not self.record.costs:
            self.record.path.unlink(missing_ok=True)
            self.output.discard()

    def _refuse_foreign(self) -> None:
        """Raise UserError where sheet or manifest would take the place of somebody else's file."""
        from lsgm.errors import DataError, UserError
        from lsgm.files.text import read_table

        described = os.path.lexists(self.manifest)
        if described:
            try:
                ours = not self.record.identity.difference(read_table(self.manifest))
            except DataError:
                ours = False
        else:
            ours = not os.path.lexists(self.sheet) or bool(self.record.costs)
        if not ours:
            name = self.manifest if described else self.sheet
            raise UserError(
                f"{name} is there and does not belong to these images: move it, or name another --out"
            )

    def _go_on(self) -> None:
        """Draw what is missing, block by block, each process its share; a block that is there is recorded."""
        from lsgm.errors import UserError
        from lsgm.progress import bar

        total, world, size = self.options.n, self.world, self.batch * self.world.size
        with bar(total=total, desc="sampling", unit="image") as progress:
            for start in range(0, total, size):
                block = range(start, min(start + size, total))
                missing = world.on_main(partial(self._missing, block))
                dealt = world.deal(len(missing), self.batch).tolist()
                shares = world.gather(self._draw_share([missing[place] for place in dealt]))
                if refused := [share for share in shares if isinstance(share, str)]:
                    raise UserError(refused[0])
                world.on_main(partial(self._note, shares))
                progress.update(len(block))

    def _draw_share(self, numbers: list[int]) -> tuple[list[int], list[float], float] | str:
        """Draw and write some images; return their seeds, evaluations and seconds, or what went wrong."""
        import numpy as np

        from lsgm.errors import UserError

        seeds = [self.options.seeds[k] for k in numbers]
        if not seeds:
            return [], [], 0.0
        try:
            drawn = self.model.sample(seeds, self.options.sampler)
            self.output.write(np.array(numbers, dtype=np.int64), drawn.images.cpu())
        except UserError as error:  # raised by all processes together, so that none waits for another
            return str(error)
        return seeds, drawn.nfe.tolist(), drawn.seconds

    def _note(self, shares: list[tuple[list[int], list[float], float] | str]) -> None:
        for share in shares:
            if share[0] and not isinstance(share, str):
                self.record.add(*share)

    def _missing(self, numbers: range) -> list[int]:
        return [number for number in numbers if not self._is_there(number)]

    def _is_there(self, number: int) -> bool:
        return self.options.seeds[number] in self.record.costs and self.output.holds(number)

    def _describe(self) -> None:
        """Write sheet and manifest of what is there."""
        from lsgm.files import write
        from lsgm.runs.provenance import provenance
        from lsgm.sampling.keep import keeping, save_grid

        first = self.options.first_seed
        drawn = [seed - first for seed in sorted(self.record.costs) if seed in self.options.seeds]
        there = list(islice(filter(self._is_there, drawn), SHEET))
        if not there:
            return
        with keeping(self.place):
            save_grid(self.output.read(there), self.sheet)
            where = {"device": str(self.world.device), **provenance()}
            content = {
                **self.record.identity.as_dict(),
                **self.record.summary(self.record.costs),
                **{name: where[name] for name in ("device", "time", "argv", "git_revision", "versions")},
            }
            write.replace_file(self.manifest, (json.dumps(content, indent=1) + "\n").encode())

    def tell(self, stopped: int) -> None:
        """Say what was done, or how to go on."""
        asked = self.record.summary(self.options.seeds)
        if stopped:
            drawn = f"{asked['n']:,} of {self.options.n:,} images are drawn and kept for {self.place}"
            log.warning(f"interrupted; {drawn}: run the same command again to go on")
        elif self.options.json:
            line = {
                "model": self.model.name,
                "sha256": self.model.sha256,
                "seeds": [self.options.seeds[0], self.options.seeds[-1]],
                "sampler": self.record.identity.settings,
                "nfe_mean": asked["nfe_mean"],
                "nfe_max": asked["nfe_max"],
                "seconds": asked["seconds"],
                "grid": str(self.sheet),
                "images": str(self.place),
                "manifest": str(self.manifest),
            }
            print(json.dumps(line))
        else:
            cost = (
                f"{asked['nfe_mean']:.1f} network evaluations each"
                if self.model.has_prior
                else "one decoder pass each"
            )
            shown = f"the first {min(SHEET, self.options.n)} are on {self.sheet}"
            print(f"{shown}, and {self.manifest} says what they are")
            print(f"{self.options.n} images in {asked['seconds']:.1f} s, {cost}: {self.place}")
            if (more := len(self.record.costs)) > self.options.n:
                print(f"{self.place} holds {more} with those of other seeds, and all are measured")


def _place(options: SampleOptions, checkpoint: Path, identity: Identity) -> Path:
    """Return the folder or file to write to; its default differs for any two models and samplers."""
    if options.out is not None:
        out = options.out.expanduser()
        out = out if out.name not in ("", "..") else out.resolve()
        require(
            out.name != "", f"out is {out}, which nothing can lie beside, and a sheet has to: name a folder"
        )
        return out.with_name(f"{out.name}.npz") if options.npz and out.suffix.lower() != ".npz" else out
    sampler = [identity.sampler.name] if identity.sampler else []
    name = file_name("-".join([identity.model.replace("/", "-"), *sampler, identity.key[:8]]))
    folder = Path("samples")
    parent = checkpoint.parent if checkpoint.name else checkpoint.resolve().parent
    if parent.name == "checkpoints" and (parent.parent / "config.toml").exists():
        # The run may have been received, and its place for samples be a link that nobody here has named.
        folder = claim(parent.parent) / "samples"
    return folder / (f"{name}.npz" if options.npz else name)
