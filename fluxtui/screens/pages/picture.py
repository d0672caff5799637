"""Pictures: real ones where the terminal can show them, else half-blocks, or shades where there are no colours.

Never on the UI's loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from fluxtui.persist.files.text import clean
from fluxtui.screens.drawing.appearance import look_of
from fluxtui.screens.drawing.ink import Line
from fluxtui.screens.drawing.terminal_kind import TerminalKind, Tier
from fluxtui.screens.keys.dispatch import front_of
from fluxtui.screens.terminal.gallery import Gallery, Placed, Way

if TYPE_CHECKING:
    from PIL.Image import Image

    from fluxtui.screens.drawing.pane import Pane

KEPT = 200  # drawings of a pane
MOST_PIXELS = 64_000_000  # a file with more is not opened
_SHADES = " .:-=+*#%@"


class HasGallery(Protocol):
    """An app that keeps what pictures are shown."""

    gallery: Gallery


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture at one size."""

    path: Path
    lines: tuple[Line, ...]
    width: int  # cells
    caption: str = ""  # the prompt, where the file holds one
    trouble: str = ""  # why there is nothing to see
    placed: Placed | None = None  # the real picture that the lines stand for


class Drawings:
    """The drawings of a pane: asked for while it draws itself, made in threads, shown when they come."""

    def __init__(self, pane: Pane) -> None:
        self._pane = pane
        self._made: dict[tuple[Path, int, int], Drawn] = {}
        self._asked: set[tuple[Path, int, int]] = set()

    def get(self, path: Path, width: int, height: int) -> Drawn | None:
        """The drawing in at most so many cells, or None while a thread makes it."""
        key = (path, width, height)
        made = self._made.get(key)
        if made is not None and made.placed is not None and not gallery_of(self._pane.app).holds(made.placed):
            del self._made[key]  # its number has been given to another picture
        if key not in self._made and key not in self._asked and width > 0 and height > 0:
            self._asked.add(key)
            kind = look_of(self._pane.app).kind
            gallery = gallery_of(self._pane.app)
            front_of(self._pane.app).run_quietly(lambda: self._make(key, kind, gallery))
        return self._made.get(key)

    def _make(self, key: tuple[Path, int, int], kind: TerminalKind, gallery: Gallery) -> None:
        """Runs in a thread."""
        drawing = draw(*key, kind, gallery)
        self._pane.app.call_from_thread(self._take, key, drawing)

    def _take(self, key: tuple[Path, int, int], drawing: Drawn) -> None:
        self._asked.discard(key)
        if len(self._made) >= KEPT:
            self._made.pop(next(iter(self._made)))
        self._made[key] = drawing
        self._pane.repaint()


def gallery_of(app: object) -> Gallery:
    return cast(HasGallery, app).gallery


def draw(path: Path, width: int, height: int, kind: TerminalKind, gallery: Gallery | None = None) -> Drawn:
    """The picture in at most so many cells. Blocking: reads and decodes; for a thread. Never raises for what the file is."""
    from PIL import Image, UnidentifiedImageError

    way, cell = gallery.settle() if gallery is not None else (Way.BLOCKS, (1, 2))
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                return Drawn(path, (), 0, trouble=f"{opened.width} by {opened.height} pixels: too large to show")
            texts = getattr(opened, "text", {}) if opened.format == "PNG" else {}
            prompt = clean(str(texts.get("prompt", "")), 500)
            opened.draft("RGB", (2 * width * cell[0], 2 * height * cell[1]))
            if gallery is not None and way is not Way.BLOCKS:
                return _real(path, opened, width, height, prompt, gallery)
            small = _fitted(opened, width, 2 * height)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        return Drawn(path, (), 0, trouble=clean(f"cannot be shown: {error}", 200))
    lines = _half_blocks(small) if kind.has_colour and kind.tier is not Tier.ASCII else _shades(small)
    return Drawn(path, tuple(lines), small.width, prompt)


def _real(path: Path, opened: Image, width: int, height: int, prompt: str, gallery: Gallery) -> Drawn:
    from PIL import ImageOps

    from fluxtui.screens.terminal.picture_real import cells, hung

    way, cell = gallery.settle()
    placed = hung(ImageOps.exif_transpose(opened).convert("RGB"), width, height, gallery, way, cell)
    return Drawn(path, tuple(cells(placed)), placed.columns, prompt, placed=placed)


def _fitted(opened: Image, width: int, height: int) -> Image:
    """Scaled into a box of so many pixels, upright as EXIF says, small ones made larger."""
    from PIL import Image as Images
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(opened).convert("RGB")
    share = min(width / upright.width, height / upright.height)
    size = (max(1, round(upright.width * share)), max(2, round(upright.height * share / 2) * 2))
    return upright.resize(size, Images.Resampling.LANCZOS if share < 1 else Images.Resampling.NEAREST)


def _half_blocks(small: Image) -> list[Line]:
    data, stride = small.tobytes(), 3 * small.width
    lines = []
    for y in range(0, small.height - 1, 2):
        line, run, role = Line(), "", ""
        for x in range(small.width):
            upper = y * stride + 3 * x
            own = f"#{data[upper : upper + 3].hex()}/#{data[upper + stride : upper + stride + 3].hex()}"
            if own != role:
                line.add(run, role)
                run, role = "", own
            run += "▀"
        lines.append(line.add(run, role))
    return lines


def _shades(small: Image) -> list[Line]:
    grey = small.convert("L").resize((small.width, max(1, small.height // 2)))
    data = grey.tobytes()
    return [
        Line("".join(_SHADES[value * len(_SHADES) // 256] for value in data[y * grey.width : (y + 1) * grey.width]))
        for y in range(grey.height)
    ]
