"""Runs that no training made: imported, or with statistics of the weights taken anew.

Each is one finished checkpoint, without optimisers, in a directory that appears whole or not at all.

Statistics are taken anew for sampling: in training, batch normalisation has those of latents encoded from
images. Latents drawn from the prior are distributed a little differently, and a decoder that is deep in
normalisations shows it (NVAE, arXiv:2007.03898, section 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lsgm.config import SamplerConfig
from lsgm.errors import CheckpointError, ConfigError, UserError
from lsgm.files import write
from lsgm.files.names import shown
from lsgm.generative import GenerativeModel
from lsgm.kinds import recipe_from
from lsgm.nets.layers import BatchNorm
from lsgm.rng import derive_seed
from lsgm.runs.checkpoint import save_checkpoint, weights_file
from lsgm.runs.directory import Run
from lsgm.runs.load import OpenedCheckpoint, averaged_weights
from lsgm.runs.records import Position
from lsgm.structure import to_dict

DECODER = "vae.decoder"
"""The module whose statistics are taken anew."""


def decoder_of(opened: OpenedCheckpoint) -> nn.Module:
    """Return the decoder of a checkpoint's VAE. Raises UserError where it has no batch normalisation."""
    decoder: nn.Module | None = dict(opened.networks.named_modules()).get(DECODER)
    if decoder is None or not _norms(decoder):
        raise UserError(
            f"{opened.checkpoint} has no batch normalisation in a decoder and nothing to recalibrate; "
            "use it as it is"
        )
    return decoder


def seeds_of(seed: int, batch: int, size: int) -> list[int]:
    """Return the seeds of a batch's images: none that a sampling command would be asked for."""
    return [derive_seed("recalibrate", seed, batch, index) for index in range(size)]


def re_estimate(
    model: GenerativeModel, decoder: nn.Module, batches: Iterable[Sequence[int]], sampler: SamplerConfig
) -> None:
    """Set the decoder's running statistics to their means over batches of drawn images, given by their seeds.

    Each normalisation then holds the mean of the batches' means and of their unbiased variances, every batch
    normalised by its own as in training. All else stays as it is.
    """
    norms = _norms(decoder)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        for seeds in batches:
            model.sample(seeds, sampler)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def write_recalibrated(out: Path, opened: OpenedCheckpoint, how: dict[str, Any], argv: Sequence[str]) -> Path:
    """Write a run of the opened checkpoint's averaged weights with the networks' own decoder statistics.

    It is one model: both files of weights hold it. What it was made from and ``how`` go into the checkpoint's
    meta under ``recalibrated``. Returns the checkpoint. Raises CheckpointError.
    """
    source = {
        "checkpoint": str(opened.checkpoint.resolve()),
        "sha256": opened.state["files"][weights_file(opened.state)]["sha256"],
        **how,
    }
    decoder = opened.networks.get_submodule(DECODER)
    own = {f"{DECODER}.{key}": value for key, value in decoder.state_dict().items()}
    return write_derived(out, opened, {"recalibrated": source}, own, argv)


def _norms(decoder: nn.Module) -> list[BatchNorm]:
    return [part for part in decoder.modules() if isinstance(part, BatchNorm)]


def write_derived(
    out: Path, opened: OpenedCheckpoint, said: dict[str, Any], own: dict[str, Tensor], argv: Sequence[str]
) -> Path:
    """Write a run of the opened checkpoint's averaged weights with some tensors of its ``own`` instead.

    ``said`` goes into the checkpoint's meta. Returns the checkpoint. Raises CheckpointError.
    """
    state, meta = opened.state, opened.state["meta"]
    position = {**Position.of(state).as_dict(), "stage_done": True, "finished": True}
    tensors = averaged_weights(opened.checkpoint) | own
    return write_derived_run(
        out,
        to_dict(opened.recipe),
        {**position, "ema_updates": state.get("ema_updates", 0), "meta": {**meta, **said}},
        tensors,
        tensors,
        seed=opened.recipe.seed,
        dataset={"name": meta.get("dataset")},
        argv=argv,
    )


def refuse_existing(out: Path) -> None:
    """Raise CheckpointError where something, be it a dead link, is in the way of the directory to write."""
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise CheckpointError(
            f"{shown(str(out))} cannot be written ({why}); give another directory"
        ) from None
    raise CheckpointError(
        f"{shown(str(out))} exists already; give a directory that does not, or remove it first"
    )


def write_derived_run(
    out: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    raw: Mapping[str, Tensor],
    ema: Mapping[str, Tensor],
    *,
    seed: int,
    dataset: Mapping[str, Any],
    argv: Sequence[str],
) -> Path:
    """Write ``out`` with config, manifest and one checkpoint without optimisers; return the checkpoint.

    ``state`` is the checkpoint's, which says where it comes from in its ``meta``. Raises CheckpointError
    where the directory exists or cannot be written; then nothing of it is there.
    """
    refuse_existing(out)
    try:
        recipe_from(config, "its settings")
    except ConfigError as error:  # no other command would read it
        raise CheckpointError(f"the model cannot be written as a run: {error}") from None
    try:
        with write.directory(out) as temporary:
            run = Run(temporary)
            run.start(config, seed=seed, dataset=dataset, argv=argv)
            saved = save_checkpoint(run.checkpoints, state, raw, ema, {})
            (temporary / ".lock").unlink(missing_ok=True)
    except (OSError, CheckpointError, ConfigError) as error:
        # What is said of a run's files names the temporary folder that they were to lie in.
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise CheckpointError(
            f"{shown(str(out))} could not be written ({cause.strerror or cause}); {write.remedy(cause)} or "
            "choose another place"
        ) from error
    return out / saved.relative_to(temporary)
