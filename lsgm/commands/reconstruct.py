"""``lsgm reconstruct``: images through the VAE and back."""

from __future__ import annotations

from lsgm.commands.looked_at import LookOptions, as_files_have
from lsgm.options import parse

HELP = "encode images and decode them again: what the latents keep"

DESCRIPTION = """Encode images and decode them again: what the latents keep of them.

OUT.png has rows of images and, beneath each row, what came back; OUT.npz has both, `images` and
`reconstructions`, uint8 [N, height, width, channels], and `mean_squared_error` of each in levels of 0..1."""

EXAMPLES = (
    "lsgm reconstruct runs/glyphs glyphs:test",
    "lsgm reconstruct runs/photos ./holiday --limit 64 --mean --out holiday-again",
)

COLUMNS = 8


def run(argv: list[str]) -> int:
    """Reconstruct the images, write picture and npz, and say where they are."""
    options = parse(LookOptions, argv, prog="lsgm reconstruct", description=DESCRIPTION, examples=EXAMPLES)
    import torch

    from lsgm.pictures import sheet

    model, place = options.opened("reconstruct")
    images = options.read(model, options.limit)
    seeds = range(options.seed, options.seed + len(images))
    again = model.reconstruct(images, seeds=seeds, mean=options.mean)
    rows = [
        part
        for pair in zip(torch.split(images, COLUMNS), torch.split(again, COLUMNS), strict=True)
        for part in pair
    ]
    missing = COLUMNS - len(rows[-1])
    if len(rows) > 2 and missing:
        blank = torch.full((missing, *images.shape[1:]), 128, dtype=torch.uint8)
        rows[-2:] = [torch.cat([part, blank]) for part in rows[-2:]]
    error = ((images.double() - again.double()) / 255).square().flatten(1).mean(dim=1)
    place.write(
        sheet(torch.cat(rows), columns=len(rows[0])),
        {
            "images": as_files_have(images),
            "reconstructions": as_files_have(again),
            "mean_squared_error": error.numpy(),
        },
        {"model": model.name, "images": len(images), "mean_squared_error": float(error.mean())}
        if options.json
        else None,
    )
    return 0
