"""The authors' arguments as a recipe: the published numbers come out, and nothing is passed over."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from golden import FOLDERS, golden_args, needs_golden

from lsgm.config import OptimConfig, SDEConfig
from lsgm.errors import CheckpointError
from lsgm.generative import Pixels
from lsgm.interop.nvlabs.arguments import PROPOSALS, pixels_of_args, recipe_of
from lsgm.interop.nvlabs.command import NvlabsOptions
from lsgm.interop.nvlabs.read import IGNORED, TRANSLATED, ignored
from lsgm.options import parse
from lsgm.recipes.recipe import KLConfig, NormPenaltyConfig
from lsgm.structure import from_dict, to_dict

pytestmark = needs_golden


def args(name: str = "cifar10_fid", **changes: Any) -> dict[str, Any]:
    return {**golden_args(name), **changes}


@pytest.mark.parametrize(
    ("name", "processes", "iterations"),
    [
        ("cifar10_fid", (2, 8), 365_625),
        ("mnist", (1, 4), 374_400),
        ("omniglot", (1, 4), 285_000),
        ("celeba_256", (2, 8), 422_000),
    ],
)
def test_epochs_become_the_iterations_of_the_published_runs(
    name: str, processes: tuple[int, int], iterations: int
) -> None:
    nodes, each = processes
    stage = recipe_of(args(name, num_proc_node=nodes, num_process_per_node=each)).stage2
    assert (stage.steps, stage.batch_size) == (iterations, nodes * each * args(name)["batch_size"])
    assert stage.warmup * args(name)["epochs"] == pytest.approx(args(name)["warmup_epochs"])


def test_stage_1_alone_has_its_own_budget_and_optimiser() -> None:
    only = ("weight_decay", "dataset", "num_x_bits", "decoder_dist", "use_se", "arch_instance", "num_nf")
    names = {name for name in args() if name.startswith(("num_", "kl_", "channel_", "progressive_input_vae"))}
    of_vae = {name: value for name, value in args().items() if name in {*names, *only, "log_sig_q_scale"}}
    training = {"epochs": 400, "warmup_epochs": 5, "batch_size": 32, "num_process_per_node": 8}
    stage = recipe_of({**of_vae, **training}, vae_only=True).stage1
    assert (stage.steps, stage.batch_size, stage.ema) == (78_000, 256, 0.0)
    assert stage.vae == OptimConfig("adamax", 1e-2, 1e-4, eps=1e-3, weight_decay=3e-4)
    assert stage.kl == KLConfig(start=1e-4, end=0.7, portion=1.0, hold=1e-4, balance=True)


def test_the_images_are_those_of_the_dataset() -> None:
    found = {name: (recipe_of(args(name)).data, pixels_of_args(args(name))) for name in FOLDERS}
    for name in ("mnist", "omniglot"):
        data, pixels = found[name]
        assert (data.dataset, data.pad, data.flip) == (name, 2, False)
        assert pixels == Pixels(1, 28, 28, "binary", 1)
    data, pixels = found["cifar10_nll"]
    assert (data.dataset, data.pad, data.flip, data.bits) == ("cifar10", 0, True, 8)
    assert pixels == Pixels(3, 32, 32, "discrete", 8)
    data, pixels = found["celeba_256"]
    assert (data.dataset, data.pad, data.flip, data.bits) == ("celebahq256", 0, True, 5)
    assert pixels == Pixels(3, 256, 256, "discrete", 5)
    folder = recipe_of(args("celeba_256", dataset="ffhq")).data
    assert (folder.dataset, folder.image_size) == ("./ffhq", 256)


def test_every_diffusion_has_its_numbers_and_every_decoder_its_name() -> None:
    def sde(**changes: Any) -> SDEConfig:
        return recipe_of(args("cifar10_fid", **changes)).prior.sde

    ends = {"sigma2_0": 1e-3, "sigma2_min": 1e-3, "sigma2_max": 812.5}
    assert sde(sde_type="vesde", **ends) == SDEConfig("ve", sigma2_0=1e-3, sigma2_min=1e-3, sigma2_max=812.5)
    assert sde(sde_type="sub_vpsde", beta_end=18.0) == SDEConfig("subvp", 0.1, 18.0, 0.0)
    for theirs, ours in {"dml": "mixture", "dl": "logistic", "normal": "normal"}.items():
        assert recipe_of(args("cifar10_fid", decoder_dist=theirs)).vae.decoder == ours


@pytest.mark.parametrize("value", PROPOSALS)
def test_the_weighting_and_the_times_are_those_of_their_names(value: str) -> None:
    objective = recipe_of(args(iw_sample_p=value)).prior.objective
    by_part = {"ll": "ll", "drop_all": "un", "drop_sigma2t": "re", "rescale": "rescale"}
    part, _, times = value.rpartition("_")
    assert objective.weighting == by_part[part]
    assert objective.importance_sampling == (times == "iw" and part != "rescale")
    assert not objective.reference_compat
    assert recipe_of(args(), reference_compat=True).prior.objective.reference_compat


def test_the_times_of_the_vae() -> None:
    def times(**changes: Any) -> tuple[str, bool, bool]:
        stage = recipe_of(args("celeba_256", **changes)).stage2
        return stage.vae_times, stage.vae_importance_sampling, stage.ema_prior

    assert times() == ("disjoint", True, False)
    assert times(update_q_ema=True) == ("disjoint", True, True)
    assert times(disjoint_training=False) == ("own", True, False)
    assert times(disjoint_training=False, iw_sample_q="ll_uniform") == ("own", False, False)
    assert times(disjoint_training=False, iw_sample_q="reweight_p_samples") == ("shared", True, False)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.05, 0.1, 0.5, 1.0])
def test_the_weight_of_the_kl_rises_as_theirs(share: float) -> None:
    low, high, hold, rise = 0.2, 0.9, 0.03, 0.4
    named = {"const_coeff": low, "max_coeff": high, "const_portion": hold, "anneal_portion": rise}
    kl = recipe_of(args(**{f"kl_{key}_vada": value for key, value in named.items()})).stage2.kl
    assert kl.at(share) == pytest.approx(min(max(low + (high - low) * (share - hold) / rise, low), high))
    assert recipe_of(args(cont_kl_anneal=False)).stage2.kl.at(share) == 1.0


def test_the_penalties() -> None:
    def penalties(**changes: Any) -> tuple[NormPenaltyConfig, NormPenaltyConfig, NormPenaltyConfig]:
        recipe = recipe_of(args("celeba_256", **changes))
        return recipe.stage1.vae_penalty, recipe.stage2.vae_penalty, recipe.stage2.prior_penalty

    one, two, prior = (
        NormPenaltyConfig(3e-2, 3e-2),
        NormPenaltyConfig(0.1, 0.1),
        NormPenaltyConfig(1e-2, 1e-2),
    )
    assert penalties() == (one, two, prior)
    # The penalty of a network with convolutions of its own class finds none of them.
    assert penalties(custom_conv_dae=True)[2] == NormPenaltyConfig(0.0, 1e-2)
    annealed = NormPenaltyConfig(3e-2, 3e-2, anneal_from=10.0 / 3e-2)
    assert penalties(weight_decay_norm_anneal=True)[0] == annealed
    assert penalties(train_vae=False)[1] == NormPenaltyConfig()
    assert not recipe_of(args("celeba_256", train_vae=False)).stage2.train_vae


def test_the_networks() -> None:
    vae, prior = (recipe := recipe_of(args("celeba_256", num_channels_dec=12))).vae, recipe.prior
    assert vae.kind == "nvae"
    assert (vae.width, vae.decoder_width, vae.multipliers, vae.blocks) == (4, 12, (1, 1, 2, 4), 1)
    assert (vae.scales, vae.groups, vae.latents, vae.flows, vae.input_skip) == (3, 2, 2, 2, True)
    assert (vae.cells, vae.decoder, vae.squeeze_excite) == ("res_mbconv", "mixture", True)
    assert (prior.network.multipliers, prior.network.attention, prior.network.fir) == (
        (1, 2, 2, 2),
        (16,),
        True,
    )
    assert (prior.mixing_init, recipe.stage2.drop_inactive) == (-6.0, True)
    assert prior.parameterisation == "mixed"
    levels = {scales: recipe_of(args("celeba_256", num_scales_dae=scales)).prior.network for scales in (3, 5)}
    assert [network.multipliers for network in levels.values()] == [(1, 1, 1), (1, 1, 2, 2, 2)]
    assert recipe_of(args(mixed_prediction=False)).prior.mixing_init is None


def test_the_diffusions() -> None:
    geometric = recipe_of(args("cifar10_nll")).prior
    assert (geometric.sde.kind, geometric.objective.time_eps) == ("geometric", 0.0)
    assert (geometric.sde.sigma2_0, geometric.sde.sigma2_min, geometric.sde.sigma2_max) == (3e-5, 3e-5, 0.999)
    linear = recipe_of(args(sde_type="sub_vpsde", beta_start=0.2, beta_end=10.0, sigma2_0=1e-3)).prior.sde
    assert (linear.kind, linear.beta_start, linear.beta_end, linear.sigma2_0) == ("subvp", 0.2, 10.0, 1e-3)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_recipe_can_be_written_down(name: str) -> None:
    recipe = recipe_of(args(name))
    assert from_dict(type(recipe), to_dict(recipe), name) == recipe


@pytest.mark.parametrize("name", FOLDERS)
def test_the_order_of_the_arguments_says_nothing(name: str) -> None:
    items = list(args(name).items())
    for seed in range(5):
        assert recipe_of(dict(random.Random(seed).sample(items, len(items)))) == recipe_of(args(name))


class Watched(Mapping[str, Any]):
    """Arguments that remember which of them were asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values_, self.asked = values, set[str]()

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


def test_every_argument_is_translated_or_set_aside_for_a_reason() -> None:
    asked = set[str]()
    cases = [args(name) for name in FOLDERS]
    for case in (*cases, args(weight_decay_norm_anneal=True)):
        watched = Watched(case)
        recipe_of(watched)
        pixels_of_args(watched)
        asked |= watched.asked
        assert set(case) <= TRANSLATED.keys() | IGNORED.keys()
        assert ignored(case).keys() == set(case) & IGNORED.keys()
    assert asked == TRANSLATED.keys()
    assert not TRANSLATED.keys() & IGNORED.keys()


def test_an_unknown_argument_is_refused_unless_it_is_set_aside_by_name() -> None:
    strange = args(use_adain=True)
    with pytest.raises(
        CheckpointError, match=r"argument 'use_adain', which is not known .*--ignore use_adain"
    ):
        recipe_of(strange)
    assert recipe_of(strange, ignore=("use_adain",)) == recipe_of(args())
    assert ignored(strange, ("use_adain",))["use_adain"] == "left aside as asked"
    with pytest.raises(CheckpointError, match="did you mean 'dropout'"):
        recipe_of(args(dropouts=0.1))
    with pytest.raises(CheckpointError, match=r"'a', 'use_adain', .*`--ignore a use_adain`"):
        recipe_of({**strange, "a": 1})


def test_the_option_takes_the_names_as_the_sentence_gives_them() -> None:
    argv = ["f.pt", "run", "--ignore", "a", "use_adain"]
    options = parse(NvlabsOptions, argv, prog="lsgm import nvlabs", description="")
    assert options.ignore == ("a", "use_adain")


OPTIONAL = (
    "seed mixed_prediction num_proc_node num_process_per_node grad_clip_max_norm autocast_train "
    "weight_decay_norm weight_decay_norm_anneal "
    "kl_anneal_portion kl_const_portion kl_const_coeff kl_max_coeff "
    "num_x_bits channel_mult mixing_logit_init progressive_output_vae"
)
"""What older files lack, or files of stage 2 where stage 1 was trained apart."""


def test_what_older_files_lack_is_what_the_authors_evaluation_takes() -> None:
    """evaluate_vada.py: 8 bits, channel multipliers 1 and 2, a mixing logit of -3."""
    older = {
        name: value
        for name, value in args("cifar10_nll").items()
        if name not in ("num_x_bits", "channel_mult", "mixing_logit_init")
    }
    recipe = recipe_of({**older, "latent_grad_cutoff": 0.0, "progressive_output_vae": "none"})
    assert recipe.data.bits == 8
    assert recipe.vae.multipliers == (1, 2)
    assert recipe.prior.mixing_init == -3.0
    with pytest.raises(CheckpointError, match="progressive_output_vae"):
        recipe_of({**older, "progressive_output_vae": "output_skip"})


@pytest.mark.parametrize("name", FOLDERS)
def test_a_missing_argument_is_named(name: str) -> None:
    watched = Watched(args(name))
    recipe_of(watched)
    for missing in watched.asked:
        rest = {key: value for key, value in args(name).items() if key != missing}
        # Two multipliers are taken where the model has two resolutions alone.
        unfit = missing == "channel_mult" and len(args(name)["channel_mult"]) != 2
        if missing in OPTIONAL.split() and not unfit:
            recipe_of(rest)
            continue
        with pytest.raises(CheckpointError, match=f"'{missing}'"):
            recipe_of(rest)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dae_arch": "unet"}, "'dae_arch' is 'unet', and only one of ncsnpp"),
        ({"arch_instance": "res_mbconv_attn"}, "'arch_instance' is 'res_mbconv_attn'"),
        ({"dataset": "imagenet_32"}, "'dataset' is 'imagenet_32'"),
        ({"sde_type": "power_vpsde"}, "'sde_type' is 'power_vpsde'"),
        ({"decoder_dist": "laplace"}, "'decoder_dist' is 'laplace'"),
        ({"decoder_dist": "bin"}, "'decoder_dist' is 'bin', which does not fit the pixels of its dataset"),
        ({"iw_sample_p": "ll_vw"}, "'iw_sample_p' is 'll_vw'"),
        ({"iw_sample_q": "drop_all_iw"}, "'iw_sample_q' is 'drop_all_iw'"),
        ({"disjoint_training": True}, "'disjoint_training' and 'iw_sample_q' = 'reweight_p_samples'"),
        ({"progressive_input_vae": "residual"}, "'progressive_input_vae' is 'residual'"),
        ({"progressive": "pyramid"}, "'progressive' is 'pyramid'"),
        ({"embedding_type": "learned"}, "'embedding_type' is 'learned'"),
        ({"num_postprocess_blocks": 2}, "'num_preprocess_blocks' and 'num_postprocess_blocks' differ"),
        ({"num_latent_per_group": "three"}, "'num_latent_per_group' is 'three', and only a whole number"),
        ({"num_nf": True}, "'num_nf' is True, and only a whole number"),
        ({"beta_end": float("nan")}, "'beta_end' is nan, and only a finite number"),
        ({"use_se": 1}, "'use_se' is 1, and only True or False"),
        ({"channel_mult": "1 2"}, "'channel_mult' is '1 2', and only a list of whole numbers"),
        ({"channel_mult": [1, 2, 2]}, "multipliers has 3 entries; it needs blocks + scales = 2"),
        ({"batch_size": 0}, "'batch_size' is 0"),
        ({"warmup_epochs": 2000}, "'warmup_epochs' is 2000 of 1875 epochs"),
        ({"learning_rate_dae": -1.0}, "the learning rate is -1.0"),
        (
            {"dataset": "celeba_256", "num_scales_dae": 2},
            "'num_scales_dae' is 2, and the authors' code has 3 or",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_value_without_an_equal_is_named_and_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError) as refused:
        recipe_of(args(**changes))
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
