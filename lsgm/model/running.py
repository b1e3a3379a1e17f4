"""How a score model's network runs while samples are drawn: compiled, recorded as CUDA graphs, in bfloat16.

Nothing of it is a result's affair but bfloat16, which `SamplerConfig.precision` asks for; everything else
changes roundings at most. What is compiled or recorded has a fixed size of batch. Shorter batches are filled
up, so that neither the last one of a run nor an adaptive solver's dwindling one does it again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lsgm.config import Execution, SamplerConfig
from lsgm.devices import device_of, fastest_batch
from lsgm.distributed import World
from lsgm.errors import ConfigError
from lsgm.likelihood import velocity_and_forms
from lsgm.logs import log
from lsgm.nets.compiled import compile_as, compile_blocks, release, require_compiler, uncompiled
from lsgm.sampling.registry import ScoreFunction
from lsgm.score import ScoreModel
from lsgm.sde import SDE

Call = Callable[[Tensor, Tensor], Tensor]
"""``f(z_t [B, ...], t [B])``, whose rows do not know of one another."""
Recorder = Callable[[Call, Tensor, Tensor], Callable[[], Tensor]]
"""From a call and its inputs, tensors that stay where they are, to what gives its output for what is in
them."""

SMALLEST = 2
"""Rows that are run at least: compilers take a single one for a case of its own."""


class StaticCall:
    """A call at few sizes of batch: rows that are missing repeat the first one, and are left out of the
    result.

    The size is the largest batch that was met, or expected. Where batches ``shrink``, as those of an adaptive
    solver, it is halved as often as the rows still fit. With a recorder the inputs are copied to where the
    recorded call finds them.
    """

    def __init__(self, call: Call, expected: int, recorder: Recorder | None = None) -> None:
        self._call, self._recorder, self.full, self.shrinks = call, recorder, expected, False
        self._recorded: dict[object, tuple[Tensor, Tensor, Callable[[], Tensor]]] = {}

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        """Return the call's result for the rows of z and t."""
        rows = len(z)
        if not rows:
            return self._call(z, t)
        size = self._size(rows)
        if self._recorder is not None:
            return self._replayed(z, t, size, self._recorder)
        if rows == size:
            return self._call(z, t)
        return self._call(*(torch.cat([x, x[:1].expand(size - rows, *x.shape[1:])]) for x in (z, t)))[:rows]

    def _size(self, rows: int) -> int:
        self.full = size = max(self.full, rows, SMALLEST)
        while self.shrinks and (half := -(-size // 2)) >= max(rows, SMALLEST) and half < size:
            size = half
        return size

    def _replayed(self, z: Tensor, t: Tensor, size: int, recorder: Recorder) -> Tensor:
        key = size, z.shape[1:], z.dtype, t.dtype
        if key not in self._recorded:
            still = z.new_zeros(size, *z.shape[1:]), t.new_ones(size)
            _fill(z, still[0])
            _fill(t, still[1])
            self._recorded[key] = *still, recorder(self._call, *still)
        z_still, t_still, play = self._recorded[key]
        _fill(z, z_still)
        _fill(t, t_still)
        return play()[: len(z)].clone()


def _fill(rows: Tensor, still: Tensor) -> None:
    still[: len(rows)].copy_(rows)
    if len(rows) < len(still):
        still[len(rows) :].copy_(rows[:1].expand(len(still) - len(rows), *rows.shape[1:]))


class CUDAGraphs:
    """Records calls as CUDA graphs that share their memory, since one runs at a time.

    Played again, a whole network is one launch: with small ones the launches of their kernels from Python
    take longer than the kernels.
    """

    WARM_UP = 3
    """Runs before the recording, in which libraries choose their kernels and compilers compile."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, call: Call, z: Tensor, t: Tensor) -> Callable[[], Tensor]:
        """Return what runs the recorded call on what is in z and t."""
        now: Any = torch.cuda.current_stream(z.device)
        aside: Any = torch.cuda.Stream(z.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(now)
        with torch.cuda.stream(aside):
            for _ in range(self.WARM_UP):
                call(z, t)
        now.wait_stream(aside)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Another thread may use the device meanwhile, as one that extracts features from earlier images.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = call(z, t)

        def play() -> Tensor:
            graph.replay()
            return output

        return play


class StaticScore:
    """A score model whose network is asked at few sizes of batch (`StaticCall`)."""

    def __init__(self, score: ScoreModel, expected: int, recorder: Recorder | None) -> None:
        self.score, self.precision = score, score.precision
        self._calls = StaticCall(score.eps, expected, recorder), StaticCall(score.drift, expected, recorder)

    @property
    def sde(self) -> SDE:
        """The forward diffusion."""
        return self.score.sde

    def eps(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction of the noise in z_t."""
        return self._calls[0](z_t, t)

    def drift(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the velocity of the probability flow."""
        return self._calls[1](z_t, t)

    def shrinking(self, shrinks: bool) -> StaticScore:
        """Say whether batches shrink from now on, and return this score."""
        for call in self._calls:
            call.shrinks = shrinks
        return self


class InBFloat16(nn.Module):
    """A network whose convolutions, products and attention are in bfloat16, and its result in z_t's type.

    Kernels of convolutions are rounded once. Autocast leaves normalisations, the time's embedding and
    everything outside of the network in float32.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(torch.bfloat16)

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the network's prediction."""
        with torch.autocast(z_t.device.type, torch.bfloat16):
            raw: Tensor = self.network(z_t, t)
        return raw.to(z_t.dtype)


def in_bfloat16(score: ScoreModel) -> ScoreModel:
    """Return a copy of a score model for sampling whose network computes in bfloat16."""
    low = copy.deepcopy(score)
    compile_as(low.network, score.network)
    low.network, low.precision = InBFloat16(low.network), "bfloat16"
    return low


@dataclass
class Running:
    """What a model keeps of how its networks run; `prepare` sets it."""

    execution: Execution = "eager"
    batch: int = 0
    """Rows that are expected; larger batches may come."""
    decoder_batch: int | None = None
    """Images that are decoded at once; None: as many as are drawn."""
    _scores: dict[str, StaticScore | ScoreModel] = field(default_factory=dict)

    def of_any_size(self) -> AbstractContextManager[Any]:
        """Return a context for batches of any size, each of which would be compiled by itself."""
        return uncompiled() if self.execution.startswith("compiled") else nullcontext()

    def score(self, prior: ScoreModel, sampler: SamplerConfig, *, adaptive: bool) -> ScoreFunction:
        """Return what a sampler asks: the prior itself unless it is to run in another way."""
        if sampler.precision not in self._scores:
            self._scores[sampler.precision] = self._made(prior, sampler)
        found = self._scores[sampler.precision]
        return found.shrinking(adaptive) if isinstance(found, StaticScore) else found

    def _made(self, prior: ScoreModel, sampler: SamplerConfig) -> StaticScore | ScoreModel:
        score = in_bfloat16(prior) if sampler.precision == "bfloat16" else prior
        if self.execution == "eager":
            return score
        recorder = CUDAGraphs() if "graphs" in self.execution else None
        return StaticScore(score, self.batch, recorder)


def prepare(model: Any, execution: Execution, batch: int) -> str:
    """Have a model's score network run in another way from now on; ``batch`` rows at a time are expected.

    ``compiled``: torch compiles its blocks (`lsgm.nets.compiled`). ``graphs``: samples are drawn by CUDA
    graphs, bit for bit as without. ``compiled-graphs``: both. Densities run as written. Where it cannot be,
    as graphs on a CPU, the network runs eagerly; the sentence that says why is logged and returned.
    """
    running, prior = getattr(model, "running", None), getattr(model, "prior", None)
    if not isinstance(running, Running) or not isinstance(prior, ScoreModel):
        known = (
            "" if execution == "eager" else f"{model.name} has no score network that could run {execution}"
        )
        return _said(known)
    release(prior.network)
    running.execution, running.batch, running._scores = execution, batch, {}
    if execution == "eager":
        return ""
    try:
        if "graphs" in execution and device_of(prior).type != "cuda":
            raise ConfigError("CUDA graphs need a GPU")
        if execution.startswith("compiled"):
            require_compiler(device_of(prior), cuda_graphs=False)
            compile_blocks(prior.network)
        _try_out(running, prior, model.coder.latent_shape)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers and drivers fail in ways of their own
        release(prior.network)
        running.execution, running._scores = "eager", {}
        reason = str(error).strip().split("\n")[0]
        return _said(f"the score network of {model.name} cannot run {execution} here ({reason})")
    return ""


def _said(why: str) -> str:
    if why:
        log.warning(f"{why}; it runs eagerly")
    return why


@torch.no_grad()
def _try_out(running: Running, prior: ScoreModel, shape: Sequence[int]) -> None:
    """Evaluate once at the size that is expected, which compiles and records."""
    z = torch.zeros(max(running.batch, 1), *shape, device=device_of(prior))
    score = running.score(prior, SamplerConfig(), adaptive=False)
    score.eps(z, torch.ones(len(z), dtype=torch.float64, device=z.device))


def settle(
    models: Sequence[Any],
    execution: Execution,
    batch: int | Literal["auto"],
    world: World,
    *,
    flow: bool = False,
) -> int:
    """Prepare models, and return how many images are computed at once: ``batch``, or what suits them all.

    That is the smallest of their `fitting_batch`, over all processes, which have to agree; for densities by
    the ``flow`` each row has a gradient too.
    """
    size: int
    if batch == "auto":
        found = world.gather([fitting_batch(model, flow=flow) for model in models])
        size = min(map(min, found))
        log.info(f"batches of {size:,} images")
    else:
        size = batch
    for model in models:
        prepare(model, execution, size)
    return size


UNKNOWN = 64
"""Images at once of a model whose networks are not known."""


def fitting_batch(model: Any, *, flow: bool = False) -> int:
    """Return how many images a model draws, or scores by its flow, at once where it is fastest, by trying.

    The score network says it, since it takes nearly all of the time. The decoder has a number of its own: it
    may need more memory for an image than all evaluations of the network one after the other.
    """
    running, prior = getattr(model, "running", None), getattr(model, "prior", None)
    if not isinstance(running, Running) or not isinstance(prior, ScoreModel):
        return UNKNOWN
    device, shape = device_of(prior), model.coder.latent_shape

    @torch.no_grad()
    def evaluate(rows: int) -> None:
        z, t = torch.zeros(rows, *shape, device=device), torch.ones(rows, dtype=torch.float64, device=device)
        if flow:
            velocity_and_forms(lambda at: prior.drift(at, t), z, torch.ones_like(z)[None])
        else:
            prior.eps(z, t)

    @torch.no_grad()
    def decode(rows: int) -> None:
        model.decoded(torch.zeros(rows, *shape, device=device), range(rows))

    running.decoder_batch = None
    batch = fastest_batch(evaluate, device)
    running.decoder_batch = fastest_batch(decode, device, most=batch)
    return batch
