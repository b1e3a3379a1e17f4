"""safetensors: the header as a tree, and whole files of tensors of other types, shapes, names and values."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load, save
from torch import Tensor

from fuzz.draws import Draws
from fuzz.hostile import TEXTS, Raw
from fuzz.trees import changed, written

__all__ = ["altered", "safetensors_file"]

_TYPES = (
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
)


def altered(tensor: Tensor, draws: Draws) -> Tensor:
    """Return a tensor of another type, shape or with other values."""
    flat = tensor.reshape(-1)
    match draws.whole(0, 4):
        case 0:
            return tensor.to(draws.pick(_TYPES))
        case 1:
            ways = [flat, tensor[None], flat[:0], flat[:1].reshape(()) if flat.numel() else flat, tensor.mT]
            return draws.pick(
                [*ways, torch.cat([flat, flat]), flat[:1].repeat(10_000)] if tensor.ndim > 1 else ways[:3]
            )
        case 2 | 3:
            out = tensor.clone()
            value = draws.pick([0.0, float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1e-30])
            if not out.is_floating_point():
                out = out.float()
            if out.numel() and draws.chance(50):
                out.view(-1)[draws.whole(0, out.numel() - 1)] = value
            else:
                out.fill_(value)
            return out.to(tensor.dtype) if tensor.is_floating_point() else out
        case _:
            return torch.zeros(draws.pick([(0,), (1,), (3, 3), (1, 1, 1, 1, 1, 1), (100_000,)]))


def safetensors_file(content: bytes, draws: Draws) -> bytes:
    """Return another file of tensors, half of them whole and valid ones."""
    size = int.from_bytes(content[:8], "little")
    if draws.chance(50):
        tensors = load(content)
        name = draws.pick(sorted(tensors))
        match draws.whole(0, 7):
            case 0:
                del tensors[name]
            case 1:
                tensors[draws.pick([*TEXTS[:60], name.upper(), name + ".x"])] = tensors.pop(name)
            case 2:
                return save({})
            case 3:
                kind = draws.pick(_TYPES)
                tensors = {key: value.to(kind) for key, value in tensors.items()}
            case 4:
                tensors[draws.pick(["more", "", "__metadata__x"])] = torch.zeros(3)
            case _:
                tensors[name] = altered(tensors[name], draws)
        named = {
            key.encode("utf-8", "replace").decode(): value.contiguous().clone()
            for key, value in tensors.items()
        }
        return save(named)
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    match draws.whole(0, 5):
        case 0:
            return draws.pick([0, 1, 2**31, 2**40, 2**63, 2**64 - 1]).to_bytes(8, "little") + content[8:]
        case 1:
            text = written(
                draws.pick([Raw("[" * 50_000), Raw("{}"), Raw("[]"), Raw(""), Raw('"a"'), Raw("{" * 9)])
            )
        case _:
            text = written(changed(header, draws))
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw).to_bytes(8, "little") + raw + data
