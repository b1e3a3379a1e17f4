"""The public interface of Python: its names and signatures are a promise, and importing it costs nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import lsgm

SIGNATURES = {
    "load": "(path, *, device='auto', weights='ema')",
    "fit": "(recipe, out=None, *, changes=None, data=None, device='auto', max_seconds=None, init_from=None, "
    "init_vae_from=None, track=(), sheet=36, auto=())",
    "recipe": "(name, changes=None)",
    "images": "(source, *, limit=None, size=None, seed=0, convert='')",
    "sheet": "(images, *, columns=None, scale=None)",
    "Model.sample": "(self, seeds, sampler='heun', *, at_once=100, **settings)",
    "Model.density": "(self, images, method='nelbo', *, seeds=None, at_once=100, **settings)",
    "Model.encode": "(self, images, *, seeds=None, mean=False, at_once=100)",
    "Model.decode": "(self, latents, *, seeds=None, mean=False, at_once=100)",
    "Model.reconstruct": "(self, images, *, seeds=None, mean=False, at_once=100)",
    "Model.interpolate": "(self, a, b, steps=8, *, along='latents', seeds=None, mean=False)",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_is_as_promised(name: str) -> None:
    found = lsgm
    for part in name.split("."):
        found = getattr(found, part)
    signature = inspect.signature(found)  # type: ignore[arg-type]
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == SIGNATURES[name]


def test_all_names_are_there_and_documented() -> None:
    for name in lsgm.__all__:
        assert getattr(lsgm, name) is not None
        assert name == "__version__" or inspect.getdoc(getattr(lsgm, name))
    assert set(lsgm.__all__) <= set(dir(lsgm))
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        lsgm.trane  # noqa: B018


def test_importing_it_costs_nothing() -> None:
    said = "import sys, lsgm; print(sorted({'torch', 'numpy', 'pandas', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
