"""``lsgm bench processes``: what several processes gain over one, each number of them started by torchrun.

All groups are started once and wait; a round asks each in turn, so that a machine that gets slower slows all.
What is timed is the work itself, between two points that all processes of a group have reached.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsgm.errors import UserError
from lsgm.options import parse
from lsgm_eval.bench.options import ProcessesBenchOptions

if TYPE_CHECKING:
    from lsgm.distributed import World

HELP = "training, sampling and likelihood by several processes over one"

DESCRIPTION = """Start groups of processes by torchrun; each does the same work in turn: `train`, steps of
the recipe's last stage with its batch shared out; `samples`, images drawn and their features extracted;
`likelihood`, bounds of images. Networks have the weights that they are initialised with, which costs the
same. Give each process one core, as OMP_NUM_THREADS=1 does: the gain is then that of the second core."""

EXAMPLES = (
    "OMP_NUM_THREADS=1 lsgm bench processes",
    "lsgm bench processes --recipe glyphs --only train --processes 1,2 --rounds 9",
    "lsgm bench processes --device cuda --processes 1,4,8 --sharded --out bench.md",
)

TARGETS = {"train": "two-trainings", "samples": "two-evaluations", "likelihood": "two-evaluations"}
"""Of two processes on two cores over one, by `lsgm.bench.targets`."""
WARM_UP = 3
"""Steps of a round that do not count."""
AUTHKEY = b"lsgm bench processes"


def run(argv: list[str]) -> int:
    """Measure, then print or write; the exit status is 0."""
    options = parse(
        ProcessesBenchOptions,
        argv,
        prog="lsgm bench processes",
        description=DESCRIPTION,
        examples=EXAMPLES,
        may_be_empty=("--processes", "--extractor"),
    )
    import torch

    from lsgm.bench.measuring import describe, machine, publish
    from lsgm.devices import pick_device

    device = pick_device(options.device)
    options = dataclasses.replace(options, device=device.type)
    counts = options.counts or _usual(device)
    ways = [(n, apart) for n in counts for apart in (False, True) if n > 1 or not apart]
    seconds: dict[str, dict[tuple[int, bool], list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="lsgm-bench-") as folder, ExitStack() as stack:
        extractor = options.extractor or _random_inception(Path(folder))
        chosen = dataclasses.replace(options, extractor=extractor)
        groups = {way: stack.enter_context(_started(*way, chosen, Path(folder))) for way in ways}
        for part in options.parts:
            seconds[part] = {way: [] for way in ways}
            for index in range(1 + options.rounds):
                shift = index % len(ways)
                for way in ways[shift:] + ways[:shift]:
                    took = groups[way].ask(part)
                    if index:  # the first round meets empty caches
                        seconds[part][way].append(took)
    about = machine(device) | {"threads": torch.get_num_threads()}
    rows = [{**row, **about} for part, by_way in seconds.items() for row in _rows(part, by_way, options)]
    publish("processes", rows, page(rows, describe(about)), as_json=options.json, out=options.out)
    return 0


def _rows(
    part: str, by_way: Mapping[tuple[int, bool], Sequence[float]], options: ProcessesBenchOptions
) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of processes, together and apart.

    The gain is that of the fastest rounds: whatever else a machine does makes a round slower, never faster.
    """
    from lsgm.bench.measuring import quartiles
    from lsgm.bench.targets import towards

    fewest = min(n for n, _ in by_way)
    gains = {way: min(by_way[fewest, False]) / min(times) for way, times in by_way.items()}
    for (n, apart), times in by_way.items():
        row = {"part": part, "recipe": options.recipe, "processes": n, "apart": apart, "first": fewest}
        row |= {
            "steps": options.steps - WARM_UP,
            "train_batch": options.train_batch,
            "images": options.images,
        }
        row |= {"batch": options.batch, "rounds": options.rounds, "sharded": options.sharded}
        row |= {**quartiles("seconds", times), "fastest": min(times), "gain": gains[n, apart]}
        if (fewest, n, apart) == (1, 2, False) and options.device == "cpu":
            batch = f", batch {options.train_batch}" if part == "train" and options.train_batch else ""
            what = f"{options.recipe}, {part}{batch}"
            why = f"two that share nothing gain {gains[2, True]:.2f} x here"
            row |= towards(TARGETS[part], gains[n, apart], what, why)
        yield row


def _usual(device: Any) -> list[int]:
    import torch

    if device.type != "cuda":
        return [1, 2]
    return sorted({1, torch.cuda.device_count()})


def _random_inception(folder: Path) -> str:
    import torch

    from lsgm_eval.bench.fid_ways import random_state

    path = folder / "random.pth"
    torch.save(random_state(1), path)
    return f"inception:{path}"


def page(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    """Return the page: a table of what each number of processes took, and whether two met the target."""
    from lsgm.bench.measuring import columns, spread
    from lsgm.bench.targets import verdicts

    table = columns(
        {
            "work": "{part}",
            "processes": lambda row: f"{row['processes']}{', apart' if row['apart'] else ''}",
            "seconds": lambda row: spread(row, "seconds", ".2f"),
            "fastest": "{fastest:.2f}",
            "gain": "{gain:.2f}",
        },
        rows,
        left=1,
    )
    first = rows[0]
    parts = [
        "# What several processes gain",
        about,
        table,
        f"Recipe {first['recipe']}: {first['steps']} steps of its last stage by the training engine, of "
        f"{first['train_batch'] or 'its own number of'} images; {first['images']} images drawn and their "
        f"features extracted, and the bounds of as many, {first['batch']} to a batch. Seconds are medians of "
        f"{first['rounds']} rounds with quartiles, groups taken in turn. The gain is over {first['first']} "
        "together, of the fastest rounds: what else a machine does slows a round and never speeds it up. "
        "*Apart* are processes that do their parts without a word to one another, which is what the machine "
        "and the size of their parts leave to be gained.",
    ]
    if any("target" in row for row in rows):
        parts.append(verdicts(rows, every=False))
    return "\n\n".join(parts)


# A group of processes, and what each of them does


@dataclass(frozen=True)
class _Group:
    connections: Sequence[Connection]
    """To the first process of those that work together, or to each of those apart."""

    def ask(self, part: str) -> float:
        """Have the group do its share once; return the seconds that it took."""
        for connection in self.connections:
            connection.send(part)
        try:
            answers = [connection.recv() for connection in self.connections]
        except EOFError:
            raise UserError("a process of the benchmark has ended; what it said is above") from None
        if refused := [answer for answer in answers if isinstance(answer, str)]:
            raise UserError(refused[0])
        return float(max(answers))


@contextmanager
def _started(size: int, apart: bool, options: ProcessesBenchOptions, folder: Path) -> Iterator[_Group]:
    """Start a group of processes and end it with the block; those ``apart`` have a part of the work each."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    share = size if apart else 1
    told = dataclasses.asdict(options) | {"out": None, "images": -(-options.images // share)}
    silent = {"LSGM_PROGRESS": "0", "LSGM_LOG": "warning"}
    running = []
    with Listener(("localhost", 0), authkey=AUTHKEY) as listener, ExitStack() as stack:
        try:
            for index in range(share):
                place = folder / f"{size}-{apart}-{index}"
                place.mkdir()
                words = [str(listener.address[1]), str(place), json.dumps(told), str(share)]
                process = subprocess.Popen(
                    [*([sys.executable] if apart else launch), "-m", "lsgm_eval.bench.processes", *words],
                    env={"OMP_NUM_THREADS": "1", **os.environ, **silent, "LOCAL_RANK": str(index)},
                    stdout=subprocess.DEVNULL,
                )
                running.append(process)
            connections = [stack.enter_context(listener.accept()) for _ in range(share)]
            yield _Group(connections)
            for connection in connections:
                connection.send("")
            for process in running:
                process.wait(timeout=60)
        finally:
            for process in running:
                if process.poll() is None:
                    process.terminate()
                    process.wait()


def work(port: int, place: Path, options: ProcessesBenchOptions, share: int) -> None:
    """Do as the benchmark asks, as one process of a group; ``share`` is what a batch is divided by."""
    from lsgm.devices import clock, pick_device
    from lsgm.distributed import join

    world = join(pick_device(options.device))
    connection = Client(("localhost", port), authkey=AUTHKEY) if world.main else None
    try:
        ways = _ways(world, place, options, share)
        while part := world.on_main(lambda: connection.recv() if connection else ""):
            world.gather(None)
            started = clock(world.device)
            counted = ways[part]()
            world.gather(None)
            took = clock(world.device) - started
            if connection:
                connection.send(took if counted is None else counted)
    except UserError as error:
        if connection:
            connection.send(str(error))
        raise


def _ways(
    world: World, place: Path, options: ProcessesBenchOptions, share: int
) -> Mapping[str, Callable[[], float | None]]:
    """Return what can be asked for by name; what is returned are seconds, or None for all of them."""
    import torch

    from lsgm.bench.cost import training_stages
    from lsgm.bench.measuring import read_recipes
    from lsgm.bench.train import images_of
    from lsgm.config import DensityConfig, SamplerConfig
    from lsgm.data.images import test_levels
    from lsgm.kinds import find_kind
    from lsgm.runs.load import fresh_networks
    from lsgm.train.loop import pixels_of, train_recipe
    from lsgm.train.signals import StepTimer
    from lsgm_eval.features.extractor import load_extractor
    from lsgm_eval.images import ScoredImages
    from lsgm_eval.likelihood.scores import score_images
    from lsgm_eval.likelihood.store import ScoreStore
    from lsgm_eval.samples.gather import run_pass

    ((_, recipe),) = read_recipes(options.recipe).items()
    images = images_of(recipe)
    pixels = pixels_of(images, recipe.data.bits)
    networks = fresh_networks(recipe, pixels).to(world.device).eval()
    about = {"stage": "stage2", "name": options.recipe, "sha256": "0" * 64}
    model = find_kind(recipe.kind).measurable(recipe, networks, about)
    extractor = cache(lambda: load_extractor(options.extractor, pixels.shape, device=world.device))
    levels = test_levels(images, "train", 0, bits=pixels.bits, limit=options.images)
    order = torch.arange(len(levels))
    scored = ScoredImages(images.identity, "train", pixels, levels, "", order)
    *_, last = training_stages(recipe)
    trained = _alone(recipe, last, options, share)
    rounds = count()

    def train() -> float:
        timer = StepTimer(skip=WARM_UP)
        with contextlib.redirect_stderr(io.StringIO()):
            train_recipe(
                trained,
                place / f"run-{next(rounds)}",
                device=world.device,
                images=images,
                timer=timer,
                max_steps=options.steps,
            )
        return sum(timer.seconds.values())

    def samples() -> None:
        sampler = SamplerConfig("heun", steps=options.sampler_steps)
        run_pass(
            model,
            range(options.images),
            sampler,
            [extractor()],
            batch_size=options.batch,
            world=world,
            overlap=world.device.type == "cuda",
        )

    def likelihood() -> None:
        store = ScoreStore(place / f"scores-{next(rounds)}")
        score_images(
            model, scored, DensityConfig(), len(levels), batch_size=options.batch, store=store, world=world
        )

    return {"train": train, "samples": samples, "likelihood": likelihood}


def _alone(recipe: Any, stage: str, options: ProcessesBenchOptions, share: int) -> Any:
    """Return the recipe with one stage left, which looks at nothing before, and saves nothing after it."""
    from lsgm.bench.cost import training_stages

    changes: dict[str, Any] = {}
    for name, config in training_stages(recipe).items():
        if name != stage:
            changes[name] = dataclasses.replace(config, steps=0)
            continue
        wanted: dict[str, Any] = {
            "val_every": 10**9,
            "checkpoint_every": 1e9,
            "seconds": None,
            "steps": 10**6,
        }
        wanted |= {"drop_inactive": False, "sharded": options.sharded}
        wanted |= {"batch_size": max(1, (options.train_batch or config.batch_size) // share)}
        known = {field.name for field in dataclasses.fields(config)}
        settings = {key: value for key, value in wanted.items() if key in known}
        changes[name] = dataclasses.replace(config, **settings)
    return dataclasses.replace(recipe, **changes)


if __name__ == "__main__":
    work(
        int(sys.argv[1]),
        Path(sys.argv[2]),
        ProcessesBenchOptions(**json.loads(sys.argv[3])),
        int(sys.argv[4]),
    )
