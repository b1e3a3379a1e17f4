"""The embedded dataset: complete, clean, and split so that no test character was ever seen."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from lsgm import typefaces
from lsgm.data import ImageSet, sha256_of
from lsgm.data import glyphs as module


def test_there_are_about_27000_images_in_the_proportions_80_5_15(glyph_set: ImageSet) -> None:
    counts = {split: len(rows) for split, rows in glyph_set.splits.items()}
    total = sum(counts.values())
    assert 24_000 < total < 30_000
    # Whole code points move together (up to 16 images), so the shares scatter a little: four sigma of a
    # binomial over ~4,000 characters is 2.5 percentage points.
    for split, share in (("train", 0.80), ("val", 0.05), ("test", 0.15)):
        assert abs(counts[split] / total - share) < 0.025


def test_no_character_is_in_two_splits(glyph_set: ImageSet) -> None:
    seen = {split: set(labels["codepoint"].tolist()) for split, labels in glyph_set.labels.items()}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["val"]
    assert not seen["val"] & seen["test"]


def test_no_picture_occurs_twice(glyph_set: ImageSet) -> None:
    rows = torch.cat(list(glyph_set.splits.values())).flatten(1)
    assert len(torch.unique(rows, dim=0)) == len(rows)


def test_every_image_is_a_letter_with_ink_inside_its_margin(glyph_set: ImageSet) -> None:
    for split, rows in glyph_set.splits.items():
        assert rows.dtype == torch.uint8
        assert rows.shape[1:] == (1, 28, 28)
        assert (rows.flatten(1).amax(1) > 0).all()
        border = rows.clone()
        border[:, :, 2:-2, 2:-2] = 0  # margin 3, of which rounding the font size may take one
        assert border.max() == 0
        codepoints = set(glyph_set.labels[split]["codepoint"].tolist())
        assert all(unicodedata.category(chr(c)).startswith("L") for c in codepoints)


def test_ink_is_centred(glyph_set: ImageSet) -> None:
    ink = glyph_set.splits["test"][:, 0] > 0
    places = torch.arange(28)
    for axis in (1, 2):
        touched = ink.any(3 - axis)
        first = torch.where(touched, places, 28).amin(1)
        last = torch.where(touched, places, -1).amax(1)
        assert ((first + last - 27).abs() <= 1).all()  # half a pixel on each side


def test_no_image_is_the_box_of_a_missing_glyph(glyph_set: ImageSet) -> None:
    unassigned = 0x10FFFD
    boxes = [typefaces.draw(face, unassigned) for face in typefaces.installed_faces()]
    known = {row.numpy().tobytes() for rows in glyph_set.splits.values() for row in rows}
    assert not any(box in known for box in boxes)


def test_an_image_is_the_rendering_of_its_labels(glyph_set: ImageSet) -> None:
    faces = {typefaces.FACES[face.name]: face for face in typefaces.installed_faces()}
    labels = glyph_set.labels["test"]
    for row in range(0, 4000, 500):
        typeface = glyph_set.classes["typeface"][int(labels["typeface"][row])]
        style = glyph_set.classes["style"][int(labels["style"][row])]
        codepoint = int(labels["codepoint"][row])
        drawn = typefaces.draw(faces[typeface, style], codepoint)
        assert drawn == glyph_set.splits["test"][row].numpy().tobytes()
        script = glyph_set.classes["script"][int(labels["script"][row])]
        assert script in ("other", unicodedata.name(chr(codepoint)).split()[0].lower())


def test_every_class_of_script_and_style_has_training_images(glyph_set: ImageSet) -> None:
    for label in ("script", "style", "typeface"):
        counts = torch.bincount(glyph_set.labels["train"][label], minlength=len(glyph_set.classes[label]))
        assert counts.min() >= 50
        assert len(counts) == len(glyph_set.classes[label])


def test_the_version_carries_the_hash_of_the_pixels(glyph_set: ImageSet) -> None:
    assert glyph_set.sha256 == sha256_of(glyph_set.splits.values())
    assert glyph_set.version == f"1+{glyph_set.sha256[:12]}"


def named(name: str, letters: Iterable[int]) -> typefaces.Face:
    """Return a face of that name as if it had these letters alone."""
    face = next(face for face in typefaces.installed_faces() if face.name == name)
    return replace(face, letters=tuple(letters))


def test_latin_a_and_greek_alpha_are_one_picture() -> None:
    drawn = module.render_faces([named("DejaVuSans", [0x41, 0x391])], processes=1)
    assert [glyph.codepoint for glyph in drawn] == [0x41, 0x391]
    assert [glyph.codepoint for glyph in module.drop_duplicates(drawn)] == [0x41]


def test_a_letter_without_ink_is_not_drawn() -> None:
    assert typefaces.draw(named("DejaVuSans", ()), 0x20) is None


def plainly(face: typefaces.Face, codepoint: int) -> bytes:
    """Return a letter as Pillow's own functions draw it onto images, one after the other."""

    def ink(size: int) -> Image.Image:
        left, top, right, bottom = (int(edge) for edge in face.at(size).getbbox(chr(codepoint)))
        image = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(image).text((-left, -top), chr(codepoint), font=face.at(size), fill=255)
        return image.crop(image.getbbox())

    letter = ink(min(640, 128 * 176 // max(ink(128).size)))
    canvas = Image.new("L", (224, 224))
    canvas.paste(letter, ((224 - letter.width) // 2, (224 - letter.height) // 2))
    return canvas.reduce(8).tobytes()


def test_letters_are_those_of_pillows_own_drawing_to_the_bit() -> None:
    for face in typefaces.installed_faces():
        for codepoint in face.letters[:: len(face.letters) // 10]:
            assert typefaces.draw(face, codepoint) == plainly(face, codepoint)


def test_several_processes_draw_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = [named("DejaVuSans", [0x41, 0x20, 0x391, 0x62]), named("STIXGeneral", [0x41])]
    told: list[int] = []
    alone = typefaces.draw_letters(faces, processes=1)
    assert [letter is None for letter in alone[0]] == [False, True, False, False]
    assert typefaces.draw_letters(faces, told.append, processes=2) == alone
    assert sum(told) == 5
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert typefaces.draw_letters(faces, processes=2) == alone


def test_letters_that_were_begun_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path))
    faces = [named("STIXGeneral", [0x41, 0x62])]
    monkeypatch.setattr(typefaces, "installed_faces", lambda: faces)
    monkeypatch.setattr("lsgm.workers.cores", lambda: 2)
    monkeypatch.setattr(typefaces, "_under_way", [])  # what another test has begun
    typefaces.begin()
    (begun,) = typefaces._under_way
    assert typefaces.draw_letters(faces) == [[typefaces.draw(faces[0], 0x41), typefaces.draw(faces[0], 0x62)]]
    assert begun.faces == faces
    assert not typefaces._under_way
    (tmp_path / "derived").mkdir()
    (tmp_path / "derived" / "glyphs-1-x.safetensors").touch()
    typefaces.begin()
    assert not typefaces._under_way


def test_assembling_does_not_depend_on_the_order_of_rendering() -> None:
    drawn = module.render_faces(
        [named(name, range(0x41, 0x5B)) for name in list(typefaces.FACES)[:3]], processes=1
    )
    assert module.assemble(drawn).sha256 == module.assemble(drawn[::-1]).sha256
