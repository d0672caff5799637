"""A picture is read upright, in RGB, as a viewer shows it; what cannot be is named, whatever it does to a decoder."""

from __future__ import annotations

import io
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from fluxtui.engine.trainer.data.buckets import place
from fluxtui.engine.trainer.data.image import crop, decode, decode_mask, read_header, read_regular
from fluxtui.engine.trainer.refusal import DataError
from tests.trainer.hostile import (
    COLOURS,
    display_p3,
    encoded,
    grey_16,
    grey_profile,
    hostile_images,
    png_16,
    png_with_exif_at_the_end,
    quarters,
    turned,
)


def corners(picture: Image.Image) -> list[tuple[int, ...]]:
    width, height = picture.size
    return [picture.getpixel(spot) for spot in ((8, 8), (width - 8, 8), (8, height - 8), (width - 8, height - 8))]  # type: ignore[misc]


def near(found: tuple[int, ...], wanted: tuple[int, ...], by: int = 12) -> bool:
    return all(abs(a - b) <= by for a, b in zip(found, wanted, strict=True))


def is_upright(picture: Image.Image) -> bool:
    return picture.size == (64, 48) and all(map(near, corners(picture), COLOURS.values()))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_turned_upright_and_the_header_knows(tmp_path: Path, orientation: int, format: str) -> None:
    stored, exif = turned(quarters(), orientation)
    options = {"quality": 95, "subsampling": 0} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    data = encoded(stored, format, exif=exif, **options)
    assert is_upright(decode(data, "photo"))
    (tmp_path / "photo").write_bytes(data)
    header = read_header(tmp_path / "photo")
    assert (header.width, header.height, header.orientation) == (64, 48, orientation)


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_behind_the_pixels_of_a_png_counts_in_header_and_picture(tmp_path: Path, orientation: int) -> None:
    data = png_with_exif_at_the_end(orientation)
    (tmp_path / "a.png").write_bytes(data)
    header = read_header(tmp_path / "a.png")
    assert (header.width, header.height) == decode(data, "a.png").size == (64, 48)
    assert is_upright(decode(data, "a.png"))


def test_xmp_orientation_of_a_png_counts_in_header_and_picture(tmp_path: Path) -> None:
    stored, _ = turned(quarters(), 6)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta tiff:Orientation="6"/>')
    data = encoded(stored, pnginfo=info)
    (tmp_path / "a.png").write_bytes(data)
    assert read_header(tmp_path / "a.png").orientation == 6
    assert is_upright(decode(data, "a.png"))


def test_transparent_parts_are_laid_on_white() -> None:
    picture = quarters().convert("RGBA")
    picture.putpixel((8, 8), (0, 0, 0, 0))
    picture.putpixel((56, 8), (0, 0, 0, 128))
    found = decode(encoded(picture), "a.png")
    assert found.mode == "RGB"
    assert found.getpixel((8, 8)) == (255, 255, 255)
    assert found.getpixel((56, 8)) == (127, 127, 127)
    assert found.getpixel((8, 40)) == COLOURS["left bottom"]


def test_a_palette_with_a_transparent_colour_is_laid_on_white() -> None:
    picture = quarters().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    clear = picture.getpixel((8, 8))
    found = decode(encoded(picture, transparency=clear), "a.png")
    assert found.getpixel((8, 8)) == (255, 255, 255)
    assert near(found.getpixel((56, 40)), COLOURS["right bottom"])  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "RGB"])
def test_every_usual_mode_becomes_rgb(mode: str) -> None:
    found = decode(encoded(quarters().convert(mode)), "a")
    assert (found.mode, found.size) == ("RGB", (64, 48))


@pytest.mark.parametrize(("value", "wanted"), [(0, 0), (65535, 255), (32768, 128), (257 * 77, 77), (300, 1)])
def test_16_bit_grey_is_scaled_and_not_clipped(value: int, wanted: int) -> None:
    assert decode(grey_16(value), "a.png").getpixel((3, 3)) == (wanted, wanted, wanted)


def test_cmyk_becomes_rgb() -> None:
    found = decode(encoded(quarters().convert("CMYK"), "JPEG", quality=95, subsampling=0), "a.jpg")
    assert found.mode == "RGB"
    assert all(map(near, corners(found), COLOURS.values()))


def test_an_embedded_profile_is_converted_and_a_broken_one_left_out() -> None:
    red = Image.new("RGB", (32, 32), (255, 0, 0))
    converted = decode(encoded(red, icc_profile=display_p3()), "a.png").getpixel((3, 3))
    assert near(converted, (0, 0, 255))  # type: ignore[arg-type]
    assert decode(encoded(red, icc_profile=b"no profile at all" * 20), "a.png").getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_is_converted_by_a_grey_profile_and_a_mask_is_not(mode: str) -> None:
    """A scan's "Gray Gamma 1.8": a level of half the way is darker than the same level of sRGB."""
    profile = grey_profile(1.8)
    picture = Image.new("I;16", (32, 32), 128 * 257) if mode == "I;16" else Image.new(mode, (32, 32), (128, 255)[: len(mode)])
    data = encoded(picture, icc_profile=profile)
    light = (128 / 255) ** 1.8
    wanted = round(255 * (1.055 * light ** (1 / 2.4) - 0.055))
    assert wanted > 135
    assert near(decode(data, "a.png").getpixel((3, 3)), (wanted,) * 3, by=1)  # type: ignore[arg-type]
    assert decode_mask(data, "a.png", is_alpha=False).getpixel((3, 3)) == 128
    assert decode(encoded(quarters(), icc_profile=profile), "a.png").tobytes() == quarters().tobytes()  # not its kind


def test_a_colour_of_16_bits_that_a_png_names_transparent_is_laid_on_white() -> None:
    grey = numpy.full((48, 64), 1000, dtype=numpy.uint16)
    grey[:, 32:] = 1001  # the same level with 8 bits, and not transparent
    for levels, clear in ((grey, (1000,)), (numpy.stack([grey, grey * 3, grey + 40_000], axis=2), (1000, 3000, 41_000))):
        levels = levels.copy()
        levels[24:, 32:] = 50_000
        found = decode(png_16(levels, clear), "a.png")
        assert found.getpixel((3, 3)) == (255, 255, 255)
        assert near(found.getpixel((60, 40)), (195, 195, 195), by=1)  # type: ignore[arg-type]
        mask = decode_mask(png_16(levels, clear), "a.png", is_alpha=True)
        assert (mask.getpixel((3, 3)), mask.getpixel((60, 40))) == (0, 255)
        assert decode(png_16(levels), "a.png").getpixel((3, 3)) != (255, 255, 255)
    assert decode(png_16(grey, (1000,)), "a.png").getpixel((60, 3)) == (4, 4, 4)


def test_a_crop_is_the_named_box_at_the_size_of_the_bucket() -> None:
    picture = quarters(640, 480)
    found = crop(picture, place(640, 480, 64))
    assert found.size == (64, 48)
    assert all(map(near, corners(found), COLOURS.values()))
    same = crop(quarters(64, 64), place(64, 64, 64))
    assert same.tobytes() == quarters(64, 64).tobytes()     # a picture of the bucket's own size is not resampled


@pytest.mark.parametrize("name", [
    "truncated.jpg", "truncated.png", "flipped.png", "empty.png", "text.jpg", "bomb.png", "moving.webp", "float.tif",
    "header.jpg",
])  # fmt: skip
def test_what_cannot_be_used_is_named_and_never_substituted(tmp_path: Path, name: str) -> None:
    kind = hostile_images(tmp_path)[name]
    began = time.monotonic()
    with pytest.raises(DataError, match=name) as caught:
        decode(read_regular(tmp_path / name), name)
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 20       # a bomb is refused by its header


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"]), st.data())
def test_no_damage_raises_anything_but_a_sentence(format: str, data: st.DataObject) -> None:
    sound = encoded(quarters(), format)
    place = data.draw(st.integers(0, len(sound) - 1))
    change = data.draw(st.binary(min_size=1, max_size=8))
    damaged = sound[:place] + change + sound[place + len(change) :]
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    with suppress(DataError):       # and nothing else
        assert decode(damaged, "a").mode == "RGB"


def test_a_pipe_a_socket_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket.png"))
    began = time.monotonic()
    for name in ("pipe.png", "folder.png", "socket.png", "missing.png"):
        with pytest.raises(DataError, match=name):
            read_regular(tmp_path / name)
    assert time.monotonic() - began < 5
    listening.close()


def test_a_mpo_of_a_camera_is_one_picture() -> None:
    first = quarters()
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[first.resize((32, 24))], quality=95, subsampling=0)
    assert is_upright(decode(buffer.getvalue(), "a.jpg"))
