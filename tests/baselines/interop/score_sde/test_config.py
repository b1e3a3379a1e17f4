"""Settings of score_sde_pytorch: published names, files of one's own, and what is refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lsgm.errors import ConfigError
from lsgm_baselines.score_sde.settings import PUBLISHED, ScoreSDEConfig, find_config


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_name_says_what_it_is(name: str) -> None:
    config, family = find_config(name), name.split("/")[0]
    assert config.sde == {"vp": "vpsde", "subvp": "subvpsde", "ve": "vesde"}[family]
    assert config.num_res_blocks == (8 if "_deep_" in name else 4)
    assert config.fir == (config.progressive_input == "residual") == ("ncsnpp" in name)
    assert config.centered == (config.embedding_type == "positional") == (family != "ve")
    assert (config.nf, config.ch_mult, config.attn_resolutions) == (128, (1, 2, 2, 2), (16,))


def test_a_file_of_settings_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('sde = "subvpsde"\nnf = 16\nch_mult = [1, 2]\nimage_size = 16\n')
    assert find_config(str(file)) == ScoreSDEConfig(sde="subvpsde", nf=16, ch_mult=(1, 2), image_size=16)


@pytest.mark.parametrize(
    "name", ["vp/cifar10_ddpmpp", "ve/cifar10_ncsnpp", "vp/ddpm/cifar10", "ve/ncsn/cifar10_5"]
)
def test_configurations_of_discrete_times_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is of a model trained at discrete times"):
        find_config(name)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"continuous": False}, "trained at discrete times"),
        ({"name": "ddpm"}, "name is 'ddpm', and with vpsde only 'ncsnpp'"),
        ({"resblock_type": "ddpm"}, "resblock_type is 'ddpm'"),
        ({"skip_rescale": False}, "skip_rescale is False"),
        ({"conditional": False}, "conditional is False"),
        ({"fir_kernel": (1, 1)}, "fir_kernel is"),
        ({"embedding_type": "fourier"}, "embedding_type is 'fourier', and with vpsde only 'positional'"),
        ({"scale_by_sigma": True}, "scale_by_sigma is True"),
        ({"sde": "vesde"}, "embedding_type is 'positional', and with vesde only 'fourier'"),
        ({"centered": False}, "centered is False, and vpsde of pixels on"),
        ({"sigma_min": 60.0}, "give 0 < sigma_min < sigma_max"),
        ({"n_iters": 0}, "n_iters starts at 1"),
    ],
)
def test_what_cannot_be_built_is_named(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ScoreSDEConfig(**settings)


def test_names_and_files_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'vp/cifar10_ddpmpp_continuous'"):
        find_config("vp/cifar10_ddpm_continuous")
    with pytest.raises(ConfigError, match="or a TOML file of settings"):
        find_config("church")
    with pytest.raises(ConfigError, match=r"there is no .*none\.toml; check the path"):
        find_config(str(tmp_path / "none.toml"))
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("n_f = 3\n")
    with pytest.raises(ConfigError, match="n_f"):
        find_config(str(unknown))
