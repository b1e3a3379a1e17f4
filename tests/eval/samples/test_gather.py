"""One pass is a function of its seeds alone: not of batches, processes, threads or interruptions."""

from __future__ import annotations

import importlib
import multiprocessing
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from lockstep import in_step
from oracles.distances import inception_score
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.distributed import join
from lsgm.errors import UserError
from lsgm.generative import Pixels, Samples
from lsgm.rng import SeededNoise
from lsgm_eval.samples.gather import DEPTH, Pass, run_pass

SAMPLER = SamplerConfig("heun", steps=3)


@dataclass
class Noise:
    """Images of 2x2 uniform colours; `stop_at` ends the process's work, one way or another, at a seed."""

    name: str = "noise"
    sha256: str = "n" * 64
    pixels: Pixels = field(default_factory=lambda: Pixels(3, 2, 2, "discrete"))
    parameters: Mapping[str, int] = field(default_factory=dict)
    has_prior: bool = True
    remark: str = ""
    change: Callable[[Tensor], Tensor] = lambda images: images
    stop_at: int | None = None
    stop: Callable[[], None] = lambda: None
    drawn: list[int] = field(default_factory=list)

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        if self.stop_at in seeds:
            self.stop()
        self.drawn += seeds
        images = (SeededNoise(seeds).uniform(3, 2, 2) * 256).to(torch.uint8)
        return Samples(self.change(images), torch.tensor(seeds) % 5, 0.5)

    def density(self, *args: Any) -> Any:
        raise NotImplementedError


@dataclass
class Sums:
    """Features exact in float32, the levels times a number, with classes and a space of its own."""

    name: str = "sums"
    sha256: str = "s" * 64
    dim: int = 12
    image_shape: tuple[int, int, int] = (3, 2, 2)
    resize: str = ""
    scale: int = 1

    def __call__(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return images.flatten(1).float() * self.scale


@dataclass
class Classes(Sums):
    name: str = "classes"
    spatial_dim: int = 4

    def class_logits(self, features: Tensor) -> Tensor:
        return features[:, :3] / 64

    def with_spatial(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self(images), images[:, 0].flatten(1).float()


EXTRACTORS = (Sums(), Classes(scale=2))
SEEDS = range(1000, 1300)


def draw(model: Noise | None = None, seeds: Sequence[int] = SEEDS, **options: Any) -> Pass:
    return run_pass(
        model or Noise(), seeds, SAMPLER, EXTRACTORS, **({"batch_size": 64, "save_every": 0.0} | options)
    )


def assert_equal(one: Pass, other: Pass, *, rtol: float = 0.0) -> None:
    """Sums of 300 float64 numbers round differently in another order, by some 1e-14 of their size."""
    for extractor in EXTRACTORS:
        theirs, ours = other.of(extractor).stats, one.of(extractor).stats
        np.testing.assert_array_equal(theirs.rows, ours.rows)
        np.testing.assert_allclose(theirs.moments.mean, ours.moments.mean, rtol=rtol)
        cov, atol = ours.moments.covariance, rtol * ours.moments.covariance.max()
        np.testing.assert_allclose(theirs.moments.covariance, cov, rtol=rtol, atol=atol)
    means = [found.of(EXTRACTORS[1]).spatial.moments.mean for found in (one, other)]
    np.testing.assert_allclose(means[1], means[0], rtol=rtol)
    np.testing.assert_allclose(score_of(other), score_of(one), rtol=rtol)
    assert torch.equal(other.preview, one.preview)
    assert torch.equal(other.nfe, one.nfe)


def score_of(found: Pass) -> float:
    sums = found.of(EXTRACTORS[1]).classes
    assert sums is not None
    return sums.score().interval.value


def images() -> Tensor:
    return Noise().sample(SEEDS, SAMPLER).images


def test_a_pass_is_the_moments_rows_classes_costs_and_first_images_of_what_is_drawn() -> None:
    found, x = draw(), images().flatten(1).double().numpy()
    for extractor in EXTRACTORS:
        scale, moments = extractor.scale, found.of(extractor).stats.moments
        np.testing.assert_allclose(moments.mean, scale * x.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(moments.covariance, scale**2 * np.cov(x, rowvar=False), rtol=1e-10)
        np.testing.assert_array_equal(found.of(extractor).stats.rows, scale * x)
    spatial = found.of(EXTRACTORS[1]).spatial
    assert spatial is not None
    np.testing.assert_allclose(spatial.moments.covariance, np.cov(x[:, :4], rowvar=False), rtol=1e-10)
    assert found.of(EXTRACTORS[0]).spatial is None
    expected = inception_score(2 * x[:, :3] / 64).interval.value
    np.testing.assert_allclose(score_of(found), expected, rtol=1e-10)
    assert torch.equal(found.preview, images()[:100])
    assert found.nfe.tolist() == [seed % 5 for seed in SEEDS]
    assert (found.counts, found.seconds) == ((64, 64, 64, 64, 44), (0.5,) * 5)


@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("batch", [1, 37, 256])
def test_shards_and_batches_agree(shards: int, batch: int) -> None:
    assert_equal(in_one_process(shards, batch), draw(), rtol=1e-10)


def in_one_process(size: int, batch: int, **options: Any) -> Pass:
    """Run all ranks in lock-step threads and return what the last one has."""
    found = in_step(size, lambda world: draw(batch_size=batch, world=world, **options))
    assert_equal(found[0], found[-1])
    return found[-1]


def test_one_thread_gives_the_numbers_of_two() -> None:
    alone = draw(overlap=False)
    assert_equal(draw(), alone)
    assert not alone.overlapped


def test_an_inception_score_of_fewer_images_than_splits_is_not_begun() -> None:
    assert draw(seeds=range(9)).of(EXTRACTORS[1]).classes is None


# Interruptions.


def out_of_power() -> None:
    raise RuntimeError("no power")


@pytest.mark.parametrize("overlap", [True, False])
def test_an_interrupted_pass_goes_on_bit_for_bit(tmp_path: Path, overlap: bool) -> None:
    state, whole = tmp_path / "state.npz", draw()
    with pytest.raises(RuntimeError, match="no power"):
        draw(Noise(stop_at=1200, stop=out_of_power), state_path=state, overlap=overlap)
    model = Noise()
    again = draw(model, state_path=state, overlap=overlap)
    assert_equal(again, whole)
    assert model.drawn == list(range(1192, 1300))
    assert again.counts == whole.counts
    rest = Noise()
    assert_equal(draw(rest, state_path=state), whole)
    assert rest.drawn == []


def stopped(size: int, stop_at: int, state: Path) -> list[int]:
    """Have the process that comes to a seed stop all of them; return the seeds of what they had drawn."""
    models = [Noise(stop_at=stop_at, stop=out_of_power) for _ in range(size)]
    with pytest.raises(RuntimeError, match="no power"):
        in_step(size, lambda world: draw(models[world.rank], batch_size=10, world=world, state_path=state))
    assert len(list(state.parent.glob("state*.npz"))) == size
    return [seed for model in models for seed in model.drawn]


def test_another_number_of_processes_goes_on_where_each_was_stopped(tmp_path: Path) -> None:
    """Three processes are stopped, then two, and one ends it: no image is left out or counted twice."""
    state, last = tmp_path / "state.npz", Noise()
    drawn = stopped(3, 1150, state) + stopped(2, 1270, state)
    assert_equal(draw(last, batch_size=10, state_path=state), draw(), rtol=1e-10)
    # A batch that was drawn ahead and not yet looked at is drawn again.
    assert set(drawn) | set(last.drawn) == set(SEEDS)
    assert 0 < len(last.drawn) < 50
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


def test_what_a_file_holds_twice_is_counted_once(tmp_path: Path) -> None:
    """The first process has put all parts together and died before it removed the others'."""
    state = tmp_path / "state.npz"
    in_one_process(2, 64, state_path=state)
    part = tmp_path / "state-1-of-2.npz"
    kept = part.read_bytes()
    draw(state_path=state)
    part.write_bytes(kept)
    model = Noise()
    assert_equal(draw(model, state_path=state), draw(), rtol=1e-10)
    assert model.drawn == []
    assert not part.exists()


def test_a_network_named_by_bytes_that_are_no_text_is_kept_and_found_again(tmp_path: Path) -> None:
    odd, state, model = Sums(name="sums\udce9"), tmp_path / "state.npz", Noise()
    for _ in range(2):
        found = run_pass(model, range(30), SAMPLER, [odd], batch_size=10, state_path=state)
        assert len(found.of(odd).stats.rows) == 30
    assert len(model.drawn) == 30


def test_other_batches_go_on_from_the_same_state(tmp_path: Path) -> None:
    state = tmp_path / "state.npz"
    with pytest.raises(RuntimeError):
        draw(Noise(stop_at=1200, stop=out_of_power), state_path=state)
    assert_equal(draw(state_path=state, batch_size=7), draw(), rtol=1e-10)


@pytest.mark.parametrize(
    "other",
    [
        {"model": Noise(sha256="m" * 64)},
        {"seeds": range(1001, 1301)},
        {"sampler": SamplerConfig("heun", steps=4)},
        {"extractors": EXTRACTORS[:1]},
        {"extractors": (replace(EXTRACTORS[0], sha256="t" * 64), EXTRACTORS[1])},
        {"extractors": (replace(EXTRACTORS[0], resize="bicubic"), EXTRACTORS[1])},
        {"save": "png"},
    ],
    ids=lambda other: "-".join(other),
)
def test_the_state_of_another_pass_is_named_and_begun_again(
    tmp_path: Path, other: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    state, model = tmp_path / "state.npz", other.get("model", Noise())
    draw(state_path=state, seeds=SEEDS)
    model.drawn.clear()
    run_pass(
        model,
        other.get("seeds", SEEDS),
        other.get("sampler", SAMPLER),
        other.get("extractors", EXTRACTORS),
        batch_size=100,
        state_path=state,
        save=tmp_path / other["save"] if "save" in other else None,
    )
    assert len(model.drawn) == 300
    assert f"{state} is of another pass" in capsys.readouterr().err


@pytest.mark.parametrize("keep", [0, 200, 5000])
def test_a_damaged_state_is_named_and_begun_again(
    tmp_path: Path, keep: int, capsys: pytest.CaptureFixture[str]
) -> None:
    state, model = tmp_path / "state.npz", Noise()
    draw(state_path=state)
    state.write_bytes(state.read_bytes()[:keep])
    assert_equal(draw(model, state_path=state), draw())
    assert len(model.drawn) == 300
    assert f"{state} is damaged" in capsys.readouterr().err


# What a model may not do, and memory.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images: images / 255.0, r"images of torch\.float32: round them to uint8"),
        (lambda images: images[:-1], "returned 63 images for 64 seeds"),
        (lambda images: images[..., :1], "returned images of 3x2x1 and says it makes 3x2x2"),
    ],
)
@pytest.mark.parametrize("overlap", [True, False])
def test_images_that_are_not_what_they_should_be_are_refused_before_extraction(
    change: Callable[[Tensor], Tensor], said: str, overlap: bool
) -> None:
    with pytest.raises(UserError, match=said):
        draw(Noise(change=change), overlap=overlap)


class Broken(Sums):
    def __call__(self, images: Tensor) -> Tensor:
        features = super().__call__(images)
        return torch.where((features == images_of(1070)).all(dim=1)[:, None], torch.nan, features)


def images_of(seed: int) -> Tensor:
    return Noise().sample([seed], SAMPLER).images.flatten().float()


def test_features_that_are_not_finite_name_extractor_seeds_and_image() -> None:
    model = Noise()
    with pytest.raises(UserError, match=r"sums .* seeds 1064 to 1127 of noise: .* image 70 are not"):
        run_pass(model, range(1000, 3000), SAMPLER, [Broken()], batch_size=64)
    # The thread that draws has stopped as well: two batches used, DEPTH that wait and one that is being made.
    assert len(model.drawn) <= 64 * (2 + DEPTH + 1)


def test_two_extractors_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="two extractors are called 'sums'"):
        run_pass(Noise(), SEEDS, SAMPLER, [Sums(), Sums(scale=2)], batch_size=64)


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    def enlarge(images: Tensor) -> Tensor:  # by NumPy, whose memory is traced
        return torch.from_numpy(np.tile(images.numpy(), (1, 1, 16, 16)))

    class First(Sums):
        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images)[:, :12]

    model = Noise(pixels=Pixels(3, 32, 32, "discrete"), change=enlarge)

    def peak(count: int) -> int:
        tracemalloc.start()
        run_pass(model, range(count), SAMPLER, [First()], batch_size=10)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    # An image is 3,072 bytes, of which four batches of ten may be about. The number of a row kept, what sorts
    # it, an image's evaluations and a batch's seconds are of some 8 bytes each.
    assert peak(5000) - peak(1000) < 250 * 4000


# Two processes.


def shared(folder: Path, rank: int) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    world, said = join("cpu"), []
    options: dict[str, Any] = {"world": world, "save": folder / "samples.npz", "state_path": folder / "s.npz"}
    try:
        draw(Noise(change=unrounded), **options)
    except UserError as error:
        said.append(str(error))
    found = draw(**options)
    torch.save(
        {"said": said, "mean": found.of(EXTRACTORS[0]).stats.moments.mean.tolist()}, folder / f"{rank}.pt"
    )
    if rank == 0:
        assert_equal(found, draw(), rtol=1e-10)
    dist.destroy_process_group()


def unrounded(x: Tensor) -> Tensor:
    """Make floats of a batch of the second process alone."""
    return x.float() if (x.flatten(1) == images_of(1201)).all(dim=1).any() else x


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_share_the_pass_stop_together_and_go_on(tmp_path: Path) -> None:
    forks = multiprocessing.get_context("forkserver")
    here = "eval.samples.test_gather"  # as other processes can import it
    forks.set_forkserver_preload([here, "pytest"])
    work = importlib.import_module(here).shared
    running = [forks.Process(target=work, args=(tmp_path, rank)) for rank in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(timeout=60)
    assert [process.exitcode for process in running] == [0, 0]
    said = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert said[0] == said[1]  # both raise the error of the second, and the sums agree bit for bit
    assert len(said[0]["said"]) == 1
    with np.load(tmp_path / "samples.npz") as file:
        np.testing.assert_array_equal(file["arr_0"], images().permute(0, 2, 3, 1).numpy())
