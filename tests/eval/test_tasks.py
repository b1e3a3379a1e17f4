"""Tasks are data: complete, strict, versioned."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lsgm.data import ImageSet, dataset_names, glyphs, load, sha256_of
from lsgm.data.images import test_levels as levels_of
from lsgm.data.places import find_mirror, roots
from lsgm.data.registry import DATASETS
from lsgm.discovery import offers
from lsgm.errors import ConfigError, DataError, UserError
from lsgm.files.write import cache_dir
from lsgm.sampling import find_sampler
from lsgm_eval import task as task_module
from lsgm_eval.task import Method, load_task, task_names

CASES: tuple[tuple[Method, bool], ...] = (
    ("nelbo", True), ("ode", True), ("iw", True), ("iw", False),
)  # fmt: skip

MINIMAL = """
name = "mine"
version = 2
summary = "my images"
dataset = "glyphs"
spaces = [{ extractor = "glyphs", name = "glyphs" }]
[tiers.quick]
n_samples = 50
nelbo_images = 10
ode_images = 4
sampler = { name = "heun", steps = 10 }
"""


PUBLISHED = (
    "glyphs", "mnist", "mnist-fixed", "omniglot", "omniglot-lake28", "cifar10", "celebahq256",
)  # fmt: skip
USER_CACHE = cache_dir()  # before every test gets one of its own


def test_the_embedded_tasks_are_there() -> None:
    assert set(PUBLISHED) <= set(task_names())


@pytest.mark.parametrize("name", task_names())
def test_every_embedded_task_is_whole(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert task.dataset in dataset_names() or (name == "image-folder" and not task.dataset)
    assert set(task.tiers) == {"smoke", "quick", "full"}
    for tier in task.tiers.values():
        assert (tier.nelbo.method, tier.iw.method, tier.ode.method) == ("nelbo", "iw", "ode")
        for sampler in (tier.sampler, *tier.curve):
            assert find_sampler(sampler.name).min_steps <= sampler.steps
        assert len(set(tier.curve)) == len(tier.curve)


@pytest.mark.parametrize("name", task_names())
def test_no_number_of_the_first_version_stands_beside_one_with_a_control_variate(name: str) -> None:
    task = load_task(name)
    assert task.version >= 2
    assert all(tier.nelbo.control_variate for tier in task.tiers.values())
    with pytest.raises(
        UserError, match=f"version {task.version} here, not 1: its numbers are not comparable"
    ):
        load_task(f"{name}@1")


@pytest.mark.parametrize("name", task_names())
def test_a_larger_tier_measures_no_less_of_anything(name: str) -> None:
    task = load_task(name)
    smoke, quick, full = (task.tier(tier) for tier in ("smoke", "quick", "full"))
    for small, large in ((smoke, quick), (quick, full)):
        assert small.n_samples <= large.n_samples
        for method, has_prior in CASES:
            assert small.images_for(method, has_prior) <= large.images_for(method, has_prior)
            few, many = small.config_for(method, has_prior), large.config_for(method, has_prior)
            if small.images_for(method, has_prior):
                assert few.draws <= many.draws
                assert few.samples <= many.samples
                assert few.rtol >= many.rtol


@pytest.mark.parametrize("name", task_names())
def test_every_bound_that_solves_a_flow_names_its_dequantisation_and_two_probes_show_the_bias(
    name: str,
) -> None:
    task = load_task(name)
    # Of binary pixels the diffusion's own first noise is rounded away without loss; bits/dim of colours are
    # published for uniform noise.
    dequantise = "noise" if task.dataset and DATASETS[task.dataset].pixels == "binary" else "uniform"
    for tier in task.tiers.values():
        assert tier.ode.dequantise == dequantise
        if tier.iw_flow_images:
            assert (tier.iw_flow.dequantise, tier.iw_flow.probes) == (dequantise, 2)


def test_the_settings_of_a_bound_are_those_of_its_method_and_prior() -> None:
    tier = load_task("mnist").tier("full")
    assert tier.config_for("iw", has_prior=False).samples == 5000
    assert tier.config_for("iw", has_prior=True).samples == 50
    assert tier.images_for("iw", has_prior=True) < tier.images_for("iw", has_prior=False) == 10_000
    for has_prior in (True, False):
        assert tier.config_for("nelbo", has_prior) is tier.nelbo
        assert tier.config_for("ode", has_prior) is tier.ode


def test_published_likelihoods_are_measured_on_the_whole_test_set() -> None:
    whole = {"mnist": 10_000, "mnist-fixed": 10_000, "omniglot": 8_070, "omniglot-lake28": 8_115}
    for name, count in whole.items():
        tier = load_task(name).tier("full")
        assert (tier.nelbo_images, tier.nelbo.draws) == (count, 16)
        assert (tier.ode_images, tier.ode.rtol, tier.ode.atol) == (count, 1e-5, 1e-5)


def test_celebahq_is_scored_at_five_bits_and_its_distances_are_to_all_thirty_thousand_images() -> None:
    task = load_task("celebahq256")
    assert (task.bits, task.likelihood_split, task.reference_split) == (5, "test", "train+test")
    assert (task.tier("full").n_samples, task.tier("full").reference_images) == (30_000, 0)


@pytest.mark.parametrize("name", ["cifar10", "celebahq256", "image-folder"])
def test_photographs_are_measured_by_both_protocols_that_are_quoted_as_fid(name: str) -> None:
    torch_fidelity, clean_fid = load_task(name).spaces
    assert (torch_fidelity.extractor, clean_fid.extractor) == ("inception", "inception-clean")
    assert {"frechet", "kernel"} <= set(torch_fidelity.statistics) & set(clean_fid.statistics)
    assert "inception-score" in torch_fidelity.statistics


def test_cifar10_is_compared_with_all_training_images_by_fifty_thousand() -> None:
    task = load_task("cifar10")
    full, quick = task.tier("full"), task.tier("quick")
    assert (task.reference_split, full.n_samples, full.reference_images) == ("train+val", 50_000, 0)
    assert (quick.n_samples, quick.reference_images) == (5_000, 0)


@pytest.mark.parametrize("name", ["mnist", "mnist-fixed", "omniglot-lake28", "cifar10", "glyphs"])
def test_this_machine_sees_the_bits_that_the_task_knows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, images = load_task(name), prepared(name, monkeypatch)
    if images.sha256 not in task.levels:
        pytest.skip(f"{images.identity} is an edition whose bits the task does not list")
    levels = levels_of(images, task.likelihood_split, task.binarisation_seed, bits=task.bits)
    assert sha256_of(levels) == task.levels[images.sha256]


def prepared(name: str, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """Load a dataset where that is a matter of seconds, else skip: most are decoded or rendered only once."""
    repository = Path(__file__).resolve().parents[2]
    shared = Path(os.environ.get("LSGM_SHARED", repository.parent / "shared")) / "data"
    if name not in ("mnist", "mnist-fixed"):
        mirror = next((found for root in roots(shared) if (found := find_mirror(name, root))), None)
        key = glyphs.cache_key() if name == "glyphs" else mirror.key if mirror else ""
        if not (USER_CACHE / "derived" / f"{key}.safetensors").is_file():
            pytest.skip(f"{name} is not in the cache of this machine: lsgm.data.load puts it there once")
        monkeypatch.setenv("LSGM_CACHE", str(USER_CACHE))
    try:
        return load(name, root=shared)
    except DataError as error:
        pytest.skip(str(error))


def test_tiers_and_versions_are_part_of_the_identity() -> None:
    task = load_task("glyphs@3")
    assert task.identity("quick") == "glyphs@3/quick"
    assert task.identity("full", limit=100) == "glyphs@3/full-limit-100"
    assert task.identity("quick", custom=True) == "glyphs@3/quick-custom"
    assert task.identity("quick", limit=10, custom=True) == "glyphs@3/quick-limit-10-custom"
    with pytest.raises(UserError, match="version 3 here, not 7"):
        load_task("glyphs@7")


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown task 'glyph'; did you mean 'glyphs'"):
        load_task("glyph")
    with pytest.raises(ConfigError, match="no tier 'quik'; did you mean 'quick'"):
        load_task("glyphs").tier("quik")


def test_a_task_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    task = load_task(str(path))
    assert (task.name, task.version, task.tier("quick").n_samples) == ("mine", 2, 50)
    assert task.reference_split == "train"


def test_a_task_without_an_extractor_measures_likelihoods_only(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = MINIMAL.replace("n_samples = 50", "n_samples = 0")
    path.write_text(text.replace('spaces = [{ extractor = "glyphs", name = "glyphs" }]\n', ""))
    task = load_task(str(path))
    assert (task.spaces, task.tier("quick").n_samples) == ((), 0)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("n_samples = 50", "n_samples = 5", "at least 40"),
        ('extractor = "glyphs"', 'extractor = ""', "a feature space needs an extractor"),
        ('name = "glyphs" }', 'name = "inception" }', "FID is that of its own network"),
        ('name = "glyphs" }', "statistics = [] }", "nothing is measured in the space of glyphs"),
        ('name = "glyphs" }', 'statistics = ["fid"] }', "fid"),
        ("n_samples = 50", "n_samples = 50\nreference_images = 7", "reference-images is 7"),
        (
            'spaces = [{ extractor = "glyphs", name = "glyphs" }]\n',
            "",
            "asks for distances and the task has no",
        ),
        ("version = 2", "version = 2\nbits = 9", "bits is 9; give 1 to 8"),
        ("version = 2", "version = 2\nlevels = 3", "'levels' is 3; it must be a table"),
        ("ode_images = 4", "ode_images = 4\niw_images = 11", "iw-images must lie in 0 .. nelbo-images"),
        ("ode_images = 4", "ode_images = 4\niw_flow_images = 1", "iw-flow-images is 1"),
        ("ode_images = 4", "ode_images = 4\niw = { method = 'ode' }", "iw.method must be 'iw'"),
        ("ode_images = 4", "ode_images = 4\niw_flow = {}", "iw-flow.method must be 'iw'"),
        ("n_samples = 50", "samples = 50", "unknown key 'tiers.quick.samples'"),
        ("ode_images = 4", "ode_images = 11", "0 .. nelbo-images"),
        ("version = 2", 'version = "2"', "whole number"),
        ("version = 2", "version = ", "is not valid TOML"),
        ('dataset = "glyphs"\n', "", "'dataset' is missing"),
    ],
)
def test_mistakes_are_named_by_key_and_file(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace(old, new, 1))
    with pytest.raises(ConfigError, match=says) as caught:
        load_task(str(path))
    assert "mine.toml" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the task .*none.toml"):
        load_task(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "mine"', 'name = "../../mine"', "the task cannot be called '../../mine'"),
        ('name = "mine"', 'name = "a@2"', "the task cannot be called 'a@2'"),
        ('name = "mine"', r'name = "\u001b[2J"', r"the task cannot be called '\x1b[2J'"),
        ('name = "mine"', 'name = " "', "the task cannot be called ' '"),
        ("[tiers.quick]", '[tiers."../quick"]', "a tier cannot be called '../quick'"),
        ("n_samples = 50", "n_samples = 1000000000000", "at most 10,000,000 images are drawn"),
        ("n_samples = 50", "n_samples = 1000000000000", "set LSGM_MOST_IMAGES=1000000000000"),
        ("n_samples = 50", "n_samples = -50", "n-samples is -50; it cannot be negative"),
        ("n_samples = 50", "n_samples = 50\nfloor_images = -1", "floor-images is -1; it cannot be negative"),
        ("n_samples = 50", "n_samples = 1" + "0" * 400, "more than 308 digits"),
        ("version = 2", "version = 2\nx = " + "[" * 10**5, "it nests too deeply"),
        ("version = 2", "version = 2\n" + ".".join(["a"] * 10**5) + " = 1", "nests more than 64"),
        ("version = 2", "version = [2]", "'version' is a list; it must be a whole number"),
    ],
)
def test_a_task_that_asks_for_what_cannot_be_is_one_sentence(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_task(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_that_is_no_utf8_or_no_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(MINIMAL.encode("utf-16"))
    with pytest.raises(ConfigError, match=r"mine.toml is not text in UTF-8 \(byte 0"):
        load_task(str(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"mine.toml is a named pipe, not a file"):
        load_task(str(path))


def test_a_task_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("\ufeff" + MINIMAL, encoding="utf-8")
    assert load_task(str(tmp_path / "mine.toml")).name == "mine"


def test_a_package_adds_its_tasks_and_takes_the_name_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found without being imported: the package is a folder, and its module would end the test."""
    (tmp_path / "their_suites").mkdir()
    (tmp_path / "their_suites" / "__init__.py").write_text("raise SystemExit")
    for name in ("glyphs", "theirs"):
        (tmp_path / "their_suites" / f"{name}.toml").write_text(
            f'name = "{name}"\nversion = 7\nsummary = ""\ndataset = "bars"\n'
        )
    monkeypatch.syspath_prepend(tmp_path)
    own = offers("lsgm.suites")
    more = {"another": EntryPoint("another", "their_suites", "lsgm.suites"), **own}
    monkeypatch.setattr(task_module, "offers", lambda group: more)
    assert {"theirs", "glyphs"} <= set(task_names())
    assert load_task("theirs@7").dataset == "bars"
    assert load_task("glyphs").version != 7
