"""Train the glyph feature space: ``python -m lsgm_eval.features.train_glyphs [--out DIR] [--epochs N]``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lsgm.progress import bar
from lsgm.rng import StepNoise
from lsgm_eval.features.glyphs import FEATURES, WEIGHTS, GlyphNet

if TYPE_CHECKING:
    from lsgm.data import ImageSet

LABELS = ("script", "style")


@dataclass(frozen=True)
class TrainGlyphs:
    """Train the classifier whose penultimate layer is the glyph feature space, and write it with its card."""

    out: Path = Path(__file__).parent
    """Folder for glyphs-features.safetensors and glyphs-features.json."""
    epochs: int = 14
    """Passes over the train split."""
    batch_size: int = 256
    """Images per step."""
    lr: float = 4e-3
    """Peak learning rate of AdamW under a one-cycle schedule."""
    seed: int = 0
    """Seed of initialisation, order, binarisation and shifts."""


def train(images: ImageSet, config: TrainGlyphs) -> GlyphNet:
    """Return the trained network, in evaluation mode.

    Every epoch sees fresh Bernoulli draws of the grey values, moved by up to one pixel: the features must
    tell characters, not binarisation noise or centring.
    """
    torch.manual_seed(config.seed)
    raw, labels = images.splits["train"], images.labels["train"]
    net = GlyphNet({name: len(images.classes[name]) for name in LABELS})
    as_type: Any = net.to  # its stub does not know memory formats
    as_type(memory_format=torch.channels_last)  # a third faster on CPUs
    per_epoch = -(-len(raw) // config.batch_size)
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.lr, total_steps=config.epochs * per_epoch
    )
    progress = bar(total=config.epochs * per_epoch, desc="glyph features", unit="step")
    for epoch in range(config.epochs):
        order = torch.randperm(len(raw), generator=torch.Generator().manual_seed(config.seed + epoch))
        for k, rows in enumerate(torch.split(order, config.batch_size)):
            noise = StepNoise(config.seed, epoch * per_epoch + k, global_batch=len(rows))
            logits = net(_augment(raw[rows], noise))
            loss = sum(
                (F.cross_entropy(logits[n], labels[n][rows], label_smoothing=0.05) for n in LABELS),
                torch.zeros(()),
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            progress.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
            progress.update()
    progress.close()
    as_type(memory_format=torch.contiguous_format)
    return net.eval()


def _augment(raw: Tensor, noise: StepNoise) -> Tensor:
    """Binarise grey values dynamically and move each image by -1, 0 or 1 pixel along both axes."""
    ink = (noise.uniform(*raw.shape[1:]) * 255 < raw).float()
    size = raw.shape[-1]
    corner = (noise.uniform(2) * 3).long()
    line = torch.arange(size)
    padded = F.pad(ink[:, 0], (1, 1, 1, 1))
    rows = (corner[:, :1] + line)[:, :, None]
    columns = (corner[:, 1:] + line)[:, None, :]
    batch = torch.arange(len(raw))[:, None, None]
    return padded[batch, rows, columns][:, None]


@torch.inference_mode()
def accuracy(net: GlyphNet, images: ImageSet, split: str, seed: int) -> dict[str, float]:
    """Return the share of binarised images of ``split`` whose label is found, by label."""
    from lsgm.data import test_levels

    levels, truth = test_levels(images, split, seed), images.labels[split]
    hits = dict.fromkeys(LABELS, 0)
    for rows in torch.split(torch.arange(len(levels)), 512):
        for name, logits in net(levels[rows].float()).items():
            hits[name] += int((logits.argmax(dim=1) == truth[name][rows]).sum())
    return {name: hits[name] / len(levels) for name in LABELS}


def _card(net: GlyphNet, images: ImageSet, config: TrainGlyphs) -> dict[str, Any]:
    splits = ("train", "test")
    shares = {split: accuracy(net, images, split, config.seed) for split in splits}
    return {
        "name": "glyphs-features",
        "what": "penultimate layer of a classifier of binarised glyphs by script and style; not FID",
        "dim": FEATURES,
        "parameters": sum(p.numel() for p in net.parameters()),
        "dataset": images.identity,
        **{f"{split}_images": len(images.splits[split]) for split in splits},
        **{f"{split}_accuracy": {k: round(v, 4) for k, v in shares[split].items()} for split in splits},
        "classes": {name: len(images.classes[name]) for name in LABELS},
        **{name: getattr(config, name) for name in ("seed", "epochs", "batch_size", "lr")},
        "note": "test characters are code points of which no typeface was seen in training",
        "command": "python -m lsgm_eval.features.train_glyphs",
    }


def main(argv: list[str] | None = None) -> int:
    """Train on the glyphs of this machine and write weights and card."""
    import tyro
    from safetensors.torch import save_file

    from lsgm.data import load
    from lsgm.files.write import atomic_path

    config = tyro.cli(TrainGlyphs, args=argv, description=TrainGlyphs.__doc__)
    images = load("glyphs")
    net = train(images, config)
    card = json.dumps(_card(net, images, config), indent=1)
    state = {name: t for name, t in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    with atomic_path(config.out / WEIGHTS) as temporary:
        save_file(state, temporary, metadata={"dataset": images.identity})
    with atomic_path(config.out / "glyphs-features.json") as temporary:
        temporary.write_text(f"{card}\n", encoding="utf-8")
    print(card)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
