"""Pictures of every kind, sound and hostile, made for tests."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, ImageDraw

COLOURS = {"left top": (200, 30, 30), "right top": (30, 200, 30), "left bottom": (30, 30, 200), "right bottom": (200, 200, 30)}


def quarters(width: int = 64, height: int = 48) -> Image.Image:
    """Four colours, so that every turn and flip can be told."""
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    for number, colour in enumerate(COLOURS.values()):
        left, top = number % 2 * width // 2, number // 2 * height // 2
        draw.rectangle((left, top, left + width // 2, top + height // 2), fill=colour)
    return picture


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def turned(picture: Image.Image, orientation: int) -> tuple[Image.Image, bytes]:
    """The pixels as a camera held askew would store them, and the EXIF that says so."""
    undo = [
        None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270,
    ][orientation - 1]  # fmt: skip
    if undo is not None:
        picture = picture.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture, exif.tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with_exif_at_the_end(orientation: int) -> bytes:
    """EXIF behind the pixels, as the PNG standard allows."""
    stored, exif = turned(quarters(), orientation)
    data = encoded(stored)
    end = data.index(b"IEND") - 4
    return data[:end] + chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) + data[end:]


def bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A sound PNG of 400 million pixels in a few hundred KB."""
    rows = zlib.compressobj(9)
    line = b"\0" + bytes((width + 7) // 8)
    data = b"".join(rows.compress(line) for _ in range(height)) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def grey_16(value: int) -> bytes:
    return encoded(Image.new("I;16", (64, 48), value))


def colour_16() -> bytes:
    """A PNG of 64x48 with 16 bits for each of red, green and blue, which PIL opens as if they were 8."""
    rows = zlib.compress(b"".join(b"\0" + struct.pack(">3H", 40_000, 900, 65_535) * 64 for _ in range(48)))
    head = struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def png_16(levels: Any, clear: tuple[int, ...] = ()) -> bytes:
    """A PNG of 16-bit grey `(height, width)` or colours `(height, width, 3)`, and what is transparent in it."""
    height, width = levels.shape[:2]
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels))
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if levels.ndim == 3 else 0, 0, 0, 0)
    named = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + named + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def grey_profile(gamma: float) -> bytes:
    """A profile of grey (ICC.1:2010, section 8.4.2): luminance is the level to the power of gamma."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    white = fixed(0.9642, 1.0, 0.8249)
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"grey\0" + bytes(79), b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": b"XYZ \0\0\0\0" + white, b"kTRC": b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0),
    }  # fmt: skip
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        table += name + struct.pack(">II", start + len(body), len(tag))
        body += tag
    head = struct.pack(">I4xI", start + len(body), 0x02400000) + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + white
    return head.ljust(128, b"\0") + table + body


def display_p3() -> bytes:
    """A profile whose red is not sRGB's: sRGB's own with red and blue exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    places = {bytes(data[132 + 12 * n : 136 + 12 * n]): 132 + 12 * n for n in range(count)}
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def hostile_images(folder: Path) -> dict[str, str]:
    """Writes one of each kind that cannot be used; name -> the kind that the doctor files it under."""
    sound = encoded(quarters(), "JPEG")
    png = encoded(quarters(400, 300))
    files = {
        "truncated.jpg": (encoded(quarters(800, 600), "JPEG")[:3000], "damaged"),
        "truncated.png": (png[: len(png) // 2], "damaged"),
        "flipped.png": (png[:200] + bytes([png[200] ^ 255]) + png[201:], "damaged"),
        "empty.png": (b"", "empty"),
        "text.jpg": (b"this is not an image\n" * 50, "not-an-image"),
        "bomb.png": (bomb(), "bomb"),
        "moving.webp": (encoded(quarters(), "WEBP", save_all=True, append_images=[quarters().rotate(90)]), "animated"),
        "float.tif": (encoded(Image.new("F", (64, 48), 0.5), "TIFF"), "32-bit"),
        "tiny.png": (encoded(Image.new("RGB", (300, 9))), "too-small"),
        "header.jpg": (sound[:30], "damaged"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: kind for name, (_, kind) in files.items()}
