"""Pictures as the trainer sees them: upright, RGB, 8 bits, and nothing that is not what it says. PIL, no torch.

Turned as EXIF (or XMP) says. An embedded colour profile, a grey one too, is converted to sRGB. Transparent parts are laid
on white. 16-bit grey is divided by 257. CMYK without a profile is converted naively. Animations, pictures of 32-bit or
floating-point samples and bombs are refused: to take the first frame, or to guess a range, would be to train on another picture.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from fluxtui.engine.trainer.data.buckets import Place
from fluxtui.engine.trainer.refusal import DataError
from fluxtui.persist.files.text import clean

# Only these parsers are ever reached: PIL knows others that run programs or parse what no camera writes.
FORMATS = tuple(
    str(reader.format)
    for reader in (
        JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, WebPImagePlugin.WebPImageFile, BmpImagePlugin.BmpImageFile,
        TiffImagePlugin.TiffImageFile, GifImagePlugin.GifImageFile,
    )
)
PIXEL_LIMIT = 89_478_485        # PIL's own warning level, here an error: above it lie bombs, not photographs
LATENT_PIXELS = 8               # a side of the square of pixels that becomes one latent
FILE_LIMIT = 1 << 30            # bytes
_ORIENTATION = 0x0112
_STILL_WITH_SEVERAL = ("MPO",)  # a camera's JPEG with previews behind the picture is one picture
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError, KeyError, MemoryError, OverflowError
)
# PIL's parsers raise all of these on damaged files; each is turned into one sentence that names the file

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)   # `PIXEL_LIMIT` makes it an error


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture's header says; width and height, in pixels, are those of the upright picture."""

    width: int
    height: int
    format: str
    mode: str
    frames: int
    orientation: int        # EXIF, 1 … 8; 1 is upright
    has_alpha: bool
    has_profile: bool
    bits: int = 8           # of a sample in the file; PIL reads 16-bit colour as 8 without a word


def read_regular(path: Path, limit: int = FILE_LIMIT) -> bytes:
    """All bytes of a regular file. A pipe or device put in its place is refused without waiting for it (DataError)."""
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise DataError(f"{clean(path.name)} is larger than {limit >> 20} MiB; remove it or make it smaller", kind="too-large")
    return data


def open_regular(path: Path) -> IO[bytes]:
    """Opens a regular file for reading; never blocks on what is none (DataError)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path.name, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        what = f"{clean(path.name)} is not a regular file; replace it by the picture or caption itself"
        raise DataError(what, kind="irregular")
    return os.fdopen(descriptor, "rb")


def unreadable(name: str, error: OSError) -> DataError:
    """The system does not give the file."""
    return DataError(f"{clean(name)} cannot be read: {(error.strerror or 'unknown error').lower()}", kind="unreadable")


def read_header(path: Path) -> Header:
    """The header of the picture at `path`, without decoding it (DataError where there is none)."""
    with open_regular(path) as file:
        return header_of(file, path.name)


def header_of(file: IO[bytes], name: str) -> Header:
    """The header of a picture in an open file; `name` is for the error."""
    with _opened(file, name) as image:
        orientation = _orientation(image, file, name)
        turns = orientation >= 5 and image.format != "TIFF"     # PIL says the upright size of a TIFF
        width, height = image.size[::-1] if turns else image.size
        return Header(
            width=width,
            height=height,
            format=image.format or "",
            mode=image.mode,
            frames=_frames(image),
            orientation=orientation,
            has_alpha=_has_alpha(image),
            has_profile=bool(image.info.get("icc_profile")),
            bits=_sample_bits(image, file),
        )


def decode(data: bytes, name: str, by_profile: bool = True) -> Image.Image:
    """The upright RGB picture of 8 bits in `data`, in sRGB; or as it is stored, where not `by_profile`. DataError, naming it,
    where that cannot be had."""
    if not data:
        raise DataError(f"{name} is empty (zero bytes); replace or remove it", kind="empty")
    with _opened(io.BytesIO(data), name) as image:
        if _frames(image) > 1:
            what = f"{name} has {_frames(image)} frames; save the one to train on as a picture of its own"
            raise DataError(what, kind="animated")
        try:
            image.load()
            return _rgb(ImageOps.exif_transpose(_with_clear_colour(image, data)), name, by_profile)
        except _DECODE_ERRORS as error:
            raise _damaged(name, error) from error


def decode_mask(data: bytes, name: str, is_alpha: bool) -> Image.Image:
    """A mask as upright 8-bit grey: the transparency of a picture (`is_alpha`), opaque where it has none, or a picture's grey."""
    if not is_alpha:
        return decode(data, name, by_profile=False).convert("L")    # weights, not colours
    with _opened(io.BytesIO(data), name) as image:
        try:
            image.load()
            upright = ImageOps.exif_transpose(_with_clear_colour(image, data))
            upright = _from_16_bit(upright) if upright.mode.startswith("I;16") else upright
            return upright.convert("RGBA").getchannel("A") if _has_alpha(upright) else Image.new("L", upright.size, 255)
        except _DECODE_ERRORS as error:
            raise _damaged(name, error) from error


def crop_mask(mask: Image.Image, place: Place, size: tuple[int, int], is_mirrored: bool) -> Image.Image:
    """The part of a mask that belongs to a place of a picture of `size`, one value (the mean) for each latent."""
    across, down = mask.width / size[0], mask.height / size[1]
    left, top, right, bottom = place.box
    cells = (place.bucket.width // LATENT_PIXELS, place.bucket.height // LATENT_PIXELS)
    part = mask.resize(cells, Image.Resampling.BOX, box=(left * across, top * down, right * across, bottom * down))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_mirrored else part


def crop(picture: Image.Image, place: Place, is_mirrored: bool = False) -> Image.Image:
    """The part of an upright picture that a place names, scaled to its bucket in one step (Lanczos)."""
    part = picture.resize((place.bucket.width, place.bucket.height), Image.Resampling.LANCZOS, box=place.box)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_mirrored else part


def _opened(file: IO[bytes], name: str) -> Image.Image:
    """An image whose header is read and whose size is within the limit."""
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} has too many pixels (limit {PIXEL_LIMIT:,}): make it smaller", kind="bomb") from error
    except UnidentifiedImageError as error:
        empty = file.seek(0, os.SEEK_END) == 0
        what = "is empty (zero bytes)" if empty else "is not an image that can be read"
        raise DataError(f"{name} {what}; replace or remove it", kind="empty" if empty else "not-an-image") from error
    except _DECODE_ERRORS as error:
        raise _damaged(name, error) from error
    if image.width * image.height > PIXEL_LIMIT:
        size = f"{image.width} x {image.height}"
        raise DataError(f"{name} has {size} pixels (limit {PIXEL_LIMIT:,}): make it smaller", kind="bomb")
    return image


def _rgb(image: Image.Image, name: str, by_profile: bool) -> Image.Image:
    """8-bit RGB; see the head of this module for each kind."""
    if image.mode in ("I", "F"):
        raise DataError(f"{name} has 32-bit samples of unknown range; save it as 8-bit RGB", kind="32-bit")
    profile = image.info.get("icc_profile") if by_profile else None
    if image.mode.startswith("I;16"):
        image = _from_16_bit(image)
    is_grey = image.mode in ("1", "L", "LA", "La")
    if _has_alpha(image):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode not in ("RGB", "CMYK", "LAB") or not profile:
        image = image.convert("RGB")
    if profile:
        image = _to_srgb(image, profile, is_grey)
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Grey of 8 bits; with an alpha channel where a PNG names a value that is transparent."""
    import numpy  # for this rare kind only: numpy takes longer to import than a picture to decode

    levels = numpy.asarray(image).astype(numpy.uint32)
    grey = Image.fromarray(((levels + 128) // 257).astype(numpy.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(numpy.where(levels == clear, 0, 255).astype(numpy.uint8)))
    return grey


def _with_clear_colour(image: Image.Image, data: bytes) -> Image.Image:
    """A PNG of 16-bit colours may name one that is transparent: PIL keeps 8 bits of each pixel, and 16 of that colour."""
    clear = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear, tuple) and _sample_bits(image, io.BytesIO(data)) == 16:
        image.info["transparency"] = tuple(level >> 8 for level in clear)
    return image


def _to_srgb(image: Image.Image, profile: bytes, is_grey: bool) -> Image.Image:
    """Converted by its profile; a profile that is broken or of another colour space is left out, as viewers do."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if is_grey and source.profile.xcolor_space.strip() == "GRAY":
            image = image.convert("L")
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return converted if converted is not None else image


def _frames(image: Image.Image) -> int:
    """Pictures in the file; damage found while they are counted is for `decode` to say."""
    if image.format in _STILL_WITH_SEVERAL:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except _DECODE_ERRORS:
        return 1


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _orientation(image: Image.Image, file: IO[bytes], name: str) -> int:
    """EXIF orientation, 1 where there is none. PIL decodes a whole PNG to look for EXIF: only where one is there."""
    if image.format == "PNG" and "exif" not in image.info and not _png_holds_metadata(file):
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except _DECODE_ERRORS as error:
        raise _damaged(name, error) from error
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _sample_bits(image: Image.Image, file: IO[bytes]) -> int:
    """Bits of a sample as the file has them: of a PNG by its IHDR (byte 24), of a TIFF by BitsPerSample (tag 258)."""
    if image.format == "PNG":
        where = file.tell()
        try:
            file.seek(24)
            return (file.read(1) or b"\x08")[0]
        finally:
            file.seek(where)
    if image.format == "TIFF":
        said = getattr(image, "tag_v2", {}).get(258, 8)
        return max((bits for bits in (said if isinstance(said, tuple) else (said,)) if isinstance(bits, int)), default=8)
    return 16 if image.mode.startswith("I;16") else 8


def _png_holds_metadata(file: IO[bytes]) -> bool:
    """True where a PNG has an EXIF chunk or a text chunk, which may hold XMP; walks the chunks' heads only."""
    where = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"):
                return True
            if kind == b"IEND":
                return False
            file.seek(length + 4, os.SEEK_CUR)
        return False
    finally:
        file.seek(where)


def _damaged(name: str, error: BaseException) -> DataError:
    return DataError(f"{name} is damaged or incomplete: {_words(error)}; replace or remove it", kind="damaged")


def _words(error: BaseException) -> str:
    """The parser's own words, or the kind of the error where it has none."""
    return " ".join(str(error).split())[:120] or type(error).__name__
