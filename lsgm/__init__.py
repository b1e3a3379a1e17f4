"""Latent Score-based Generative Models (arXiv:2106.05931): the model, its objective and its trainer.

`lsgm.load` opens a trained model, `lsgm.fit` trains one, `lsgm.images` and `lsgm.sheet` are for looking. What
``__all__`` names is the public interface, kept by semantic versioning. Importing the package costs nothing:
a name is loaded when it is asked for.
"""

# Nothing is imported here: `python -m lsgm` takes the working directory from its path only after this file.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from lsgm.config import DensityConfig, SamplerConfig
    from lsgm.errors import UserError
    from lsgm.pictures import images, sheet
    from lsgm.train.fit import fit, recipe
    from lsgm.trained import Latents, Model, load

__all__ = [
    "DensityConfig",
    "Latents",
    "Model",
    "SamplerConfig",
    "UserError",
    "__version__",
    "fit",
    "images",
    "load",
    "recipe",
    "sheet",
]

__version__ = "0.1.0"

_PLACES = {
    "DensityConfig": "lsgm.config",
    "SamplerConfig": "lsgm.config",
    "UserError": "lsgm.errors",
    "Latents": "lsgm.trained",
    "Model": "lsgm.trained",
    "load": "lsgm.trained",
    "fit": "lsgm.train.fit",
    "recipe": "lsgm.train.fit",
    "images": "lsgm.pictures",
    "sheet": "lsgm.pictures",
}


def __getattr__(name: str) -> object:
    """Load what the package offers when it is asked for."""
    if name in _PLACES:
        import importlib

        found: object = getattr(importlib.import_module(_PLACES[name]), name)
        return found
    raise AttributeError(f"module 'lsgm' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
