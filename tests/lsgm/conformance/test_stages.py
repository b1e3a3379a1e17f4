"""What is compared, what fails and what is skipped, with stages whose values are known."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lsgm.conformance.folder import GoldenFolder
from lsgm.conformance.stage import (
    CannotRunError,
    Family,
    Result,
    Tolerances,
    as_json,
    as_lines,
    examine,
    is_input,
    passed,
    summary,
)
from lsgm.errors import DataError

MODEL: Any = None
ONE = torch.ones(2, 3, 4, 4, dtype=torch.float64)


def folder(**tensors: Tensor) -> GoldenFolder:
    named = {name.replace("__", "/"): value for name, value in tensors.items()}
    return GoldenFolder(Path("golden"), {}, {}, named)


def family(prefix: str, ours: Mapping[str, Tensor], **options: Any) -> Family:
    def run(golden: GoldenFolder, model: Any, names: Sequence[str]) -> Mapping[str, Tensor]:
        return ours

    return Family(lambda name: name.startswith(prefix), run, **options)


def results(golden: GoldenFolder, *families: Family) -> dict[str, Result]:
    return {result.stage: result for result in examine(golden, MODEL, families, Tolerances())}


def test_a_stage_passes_or_fails_on_its_own() -> None:
    found = results(folder(a__x=ONE, a__y=ONE), family("a/", {"a/x": ONE, "a/y": ONE + 1e-8}))
    assert (found["a/x"].verdict, found["a/y"].verdict) == ("PASS", "FAIL")
    assert not passed(list(found.values()))


def test_a_stage_without_golden_values_is_not_listed() -> None:
    found = results(folder(a__x=ONE), family("a/", {"a/x": ONE, "a/y": ONE}), family("b/", {"b/z": ONE}))
    assert list(found) == ["a/x"]


def test_a_value_that_nothing_computes_is_skipped_with_a_reason_and_has_not_passed() -> None:
    found = results(folder(a__x=ONE, new__stage=ONE), family("a/", {}))
    assert [result.verdict for result in found.values()] == ["SKIP", "SKIP"]
    assert all(result.reason for result in found.values())
    assert not passed(list(found.values()))


def test_a_family_that_cannot_run_skips_each_of_its_stages_and_no_other() -> None:
    def run(golden: GoldenFolder, model: Any, names: Sequence[str]) -> Mapping[str, Tensor]:
        raise CannotRunError("there is no prior")

    golden = folder(a__x=ONE, a__y=ONE, b__x=ONE)
    found = results(golden, Family(lambda name: name.startswith("a/"), run), family("b/", {"b/x": ONE}))
    assert [(r.verdict, r.reason) for r in found.values()][:2] == [("SKIP", "there is no prior")] * 2
    assert found["b/x"].verdict == "PASS"
    assert passed(list(found.values()))


@pytest.mark.parametrize("side", ["ours", "golden"])
def test_a_nan_fails(side: str) -> None:
    broken = ONE.clone()
    broken[0, 0, 0, 0] = math.nan
    ours, golden = (broken, ONE) if side == "ours" else (ONE, broken)
    found = results(folder(a__x=golden), family("a/", {"a/x": ours}))["a/x"]
    assert found.verdict == "FAIL"
    assert json.loads(as_json(found))["error"] is None


def test_only_what_may_be_cropped_is() -> None:
    corner = ONE[..., :2, :3]
    assert results(folder(a__x=corner), family("a/", {"a/x": ONE}, cropped=("a/x",)))["a/x"].verdict == "PASS"
    with pytest.raises(DataError, match=r"a/x has the shape \[2, 3, 2, 3\]"):
        results(folder(a__x=corner), family("a/", {"a/x": ONE}))


def test_a_corner_larger_than_the_image_is_refused() -> None:
    with pytest.raises(DataError, match="do not belong together"):
        results(folder(a__x=ONE), family("a/", {"a/x": ONE[..., :2, :2]}, cropped=("a/x",)))


def test_gradients_are_one_stage_a_part_with_the_worst_named() -> None:
    names = ["step/grad/vae/w", "step/grad/vae/b", "step/grad/prior/w"]
    ours = dict(zip(names, (ONE + 1e-8, ONE + 1e-6, ONE), strict=True))
    golden = GoldenFolder(Path("golden"), {}, {}, dict.fromkeys(names, ONE))
    found = results(golden, family("step/grad/", ours, gradients=True))
    assert list(found) == ["step/grad/prior", "step/grad/vae"]
    vae = found["step/grad/vae"]
    assert (vae.verdict, vae.worst, vae.tensors, vae.tolerance) == ("FAIL", "b", 2, 1e-7)
    assert found["step/grad/prior"].verdict == "PASS"


def test_golden_gradients_may_stand_in_another_layout() -> None:
    def stacked(golden: GoldenFolder, model: Any, theirs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"step/grad/prior/q, k": torch.cat([theirs["step/grad/prior/q"], theirs["step/grad/prior/k"]])}

    tensors = {"step/grad/prior/q": ONE, "step/grad/prior/k": 2 * ONE}
    ours = {"step/grad/prior/q, k": torch.cat([ONE, 2 * ONE])}
    stage = family("step/grad/", ours, gradients=True, translate=stacked)
    found = results(GoldenFolder(Path("golden"), {}, {}, tensors), stage)["step/grad/prior"]
    assert (found.verdict, found.worst) == ("PASS", "q, k")


def test_a_folder_of_inputs_alone_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to compare"):
        results(folder(x_uint8=ONE, prior__t=ONE))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("x_uint8", True),
        ("vae_eval/encoder_noise/00", True),
        ("step/encoder_noise/07", True),
        ("prior/z0", True),
        ("prior/t", True),
        ("step/rho_q", True),
        ("step/diffusion_noise", True),
        ("step/t", False),
        ("prior/z_t", False),
        ("vae_eval/z/00", False),
    ],
)
def test_inputs_are_told_from_results(name: str, given: bool) -> None:
    assert is_input(name) == given


def test_the_table_has_a_line_a_stage_and_verbose_one_a_tensor() -> None:
    names = ["step/grad/vae/w", "step/grad/vae/b"]
    golden = GoldenFolder(Path("golden"), {}, {}, {"a/x": ONE, **dict.fromkeys(names, ONE)})
    found = list(
        results(
            golden,
            family("a/", {"a/x": ONE}),
            family("step/", {names[0]: ONE, names[1]: ONE + 1e-3}, gradients=True),
        ).values()
    )
    lines = as_lines(found)
    assert len(lines) == 3
    assert lines[2].endswith("FAIL     2 tensors, worst b")
    assert len(as_lines(found, verbose=True)) == 5
    assert summary(found) == "1 of 2 stages pass, 1 fail"


def test_a_stage_as_json_has_every_number_and_reason() -> None:
    found = results(folder(a__x=ONE, b=ONE), family("a/", {"a/x": ONE}))
    assert json.loads(as_json(found["a/x"])) == {
        "stage": "a/x",
        "verdict": "PASS",
        "error": 0.0,
        "absolute": 0.0,
        "relative": 0.0,
        "tolerance": 1e-9,
        "tensors": 1,
    }
    assert json.loads(as_json(found["b"]))["reason"] == "this version knows no stage of that name"
