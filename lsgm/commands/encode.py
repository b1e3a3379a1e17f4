"""``lsgm encode``: images to latents."""

from __future__ import annotations

from lsgm.commands.looked_at import LookOptions
from lsgm.options import parse

HELP = "encode images: the latents of every group as arrays, and as a picture"

DESCRIPTION = """Encode images, every group of the VAE.

OUT.npz has group_0, group_1, ... float32 [N, channels, height, width], the top scale's first, and log_q_0,
log_q_1, ..., log q(z | x) of each in nats, [N]. OUT.png has a row for each image: its channels of group_0,
grey where z = 0, black and white at -3 and 3."""

EXAMPLES = (
    "lsgm encode runs/glyphs glyphs:test --limit 1000 --out letters",
    "lsgm encode runs/photos ./holiday --mean",
)

ROWS, COLUMNS = 32, 16
"""Of the picture, at most."""


def run(argv: list[str]) -> int:
    """Encode the images, write picture and npz, and say where they are."""
    options = parse(LookOptions, argv, prog="lsgm encode", description=DESCRIPTION, examples=EXAMPLES)
    import torch

    from lsgm.pictures import sheet

    model, place = options.opened("encode")
    images = options.read(model, options.limit)
    seeds = range(options.seed, options.seed + len(images))
    latents = model.encode(images, seeds=seeds, mean=options.mean)
    arrays = {f"group_{k}": z.cpu().numpy() for k, z in enumerate(latents.groups)}
    arrays |= {f"log_q_{k}": nats.cpu().numpy() for k, nats in enumerate(latents.log_q)}
    shown = latents.groups[0][:ROWS, :COLUMNS].cpu()
    grey = (127.5 * (1 + (shown / 3).clamp(-1, 1))).round().to(torch.uint8)
    place.write(
        sheet(grey[:, :, None], scale=max(1, 32 // grey.shape[-2])),
        arrays,
        {"model": model.name, "images": len(images), "groups": len(latents.groups)} if options.json else None,
    )
    return 0
