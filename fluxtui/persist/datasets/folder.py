"""Which image has which caption, by names alone: nothing is opened, no PIL.

What the pictures hold is for `fluxtui check` and the trainer's preflight to say.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxtui.persist.errors import NotFoundError, StorageError, UsageError
from fluxtui.persist.files.text import clean
from fluxtui.persist.files.tilde import expanded

DEMO = "demo"
OTHER_PICTURES = frozenset({".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw"})
IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its caption file."""

    image: Path
    caption: Path | None     # None: there is no file of the image's stem and the caption extension


@dataclass(frozen=True, slots=True)
class Pairs:
    """What a data set folder holds, by names; each tuple in the order of the names."""

    items: tuple[Pair, ...]
    orphans: tuple[Path, ...]      # caption files whose image is not there
    rivals: tuple[Path, ...]       # caption files of a stem that has one already: a.TXT beside a.txt
    irregular: tuple[Path, ...]    # named like an image or caption, but no regular file: a pipe, a folder, a dead link
    folders: tuple[Path, ...]      # subfolders: not looked into
    unread: tuple[Pair, ...] = ()  # pictures of kinds that are not read, without an image of their stem

    @property
    def without_caption(self) -> tuple[Path, ...]:
        """Images that have no caption file."""
        return tuple(pair.image for pair in self.items if pair.caption is None)

    @property
    def sharing(self) -> tuple[tuple[Pair, Pair], ...]:
        """Images of one folder and stem, which therefore have the same caption: each with the first of them."""
        first: dict[Path, Pair] = {}
        twins = [(first.setdefault(_stem(pair.image), pair), pair) for pair in self.items]
        return tuple((one, other) for one, other in twins if one is not other)


def resolve(path: str) -> Path:
    """The folder that a spec's `dataset.path` means: `demo` is the bundled one, all else a path."""
    if path == DEMO:
        from fluxtui.demo import IMAGES_DIR

        return Path(IMAGES_DIR)
    return expanded(path)


def written(path: str | Path) -> str:
    """How a spec writes the folder down: `demo` stays, all else is made absolute."""
    return DEMO if str(path) == DEMO else str(expanded(path).absolute())


def pair(path: Path, caption_extension: str = ".txt", *, is_recursive: bool = False, without: Path | None = None) -> Pairs:
    """Every image of the folder with the caption file of the same stem beside it; hidden files are left out.

    Extensions match whatever their case; stems must be the same. Where it is recursive, folders inside are looked into, but
    for links and for `without`. Raises `NotFoundError`, `UsageError` or `StorageError`.
    """
    images: list[Path] = []
    captions: dict[Path, Path] = {}
    rivals: list[Path] = []
    irregular: list[Path] = []
    folders: list[Path] = []
    others: list[Path] = []
    extension = caption_extension.lower()
    for entry in _walk(path, is_recursive, without):
        suffix = os.path.splitext(entry.name)[1].lower()
        file = Path(entry.path)
        if _leads_to(entry.is_dir):
            folders.append(file)
        elif suffix in OTHER_PICTURES:
            others.append(file)
        elif suffix not in IMAGE_EXTENSIONS and suffix != extension:
            continue
        elif not _leads_to(entry.is_file):
            irregular.append(file)
        elif suffix in IMAGE_EXTENSIONS:
            images.append(file)
        elif captions.setdefault(_stem(file), file) != file:
            rivals.append(file)
    stems = {_stem(image) for image in (*images, *irregular)}
    unread = [other for other in others if _stem(other) not in stems]
    named = stems.union(_stem(other) for other in unread)
    return Pairs(
        items=tuple(Pair(image, captions.get(_stem(image))) for image in images),
        orphans=tuple(caption for stem, caption in captions.items() if stem not in named),
        rivals=tuple(rivals),
        irregular=tuple(irregular),
        folders=tuple(folders),
        unread=tuple(Pair(other, captions.get(_stem(other))) for other in unread),
    )


def _leads_to(kind: Callable[[], bool]) -> bool:
    """What an entry is, links followed: one that leads in a circle, or to where we may not look, leads to nothing."""
    try:
        return kind()
    except OSError:
        return False


def not_read(picture: str) -> str:
    """What to say of a picture of a kind that is not read, by its name."""
    return f"{picture} is not used: {os.path.splitext(picture)[1].lower()} is not read; save it as PNG or JPEG"


def pictures_below(folder: Path, without: Collection[Path] = ()) -> int:
    """How many images lie in a folder and in all that is inside; hidden ones, links and those in `without` are not counted."""
    count = 0
    for where, inside, files in os.walk(folder):
        inside[:] = [name for name in inside if not name.startswith(".") and Path(where, name) not in without]
        count += sum(_is_picture(name) for name in files)
    return count


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def _stem(file: Path) -> Path:
    """What an image and its caption have in common: folder and name, without the extension."""
    return file.parent / os.path.splitext(file.name)[0]


def _walk(path: Path, is_recursive: bool, without: Path | None) -> Iterator[os.DirEntry[str]]:
    """What the folder holds; a folder inside that is looked into gives what it holds instead of itself."""
    for entry in _entries(path):
        if without is not None and Path(entry.path) == without:
            continue
        if is_recursive and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), is_recursive, without)
        else:
            yield entry


def _entries(path: Path) -> list[os.DirEntry[str]]:
    """What the folder holds, hidden names left out, in the order of the names' bytes."""
    try:
        with os.scandir(path) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        raise NotFoundError(f"There is no data set folder {_show(path)}; give one that exists, or demo.") from None
    except NotADirectoryError:
        raise UsageError(f"{_show(path)} is not a folder; give the folder that holds the images and their captions.") from None
    except PermissionError as error:  # it need not be ours, and is nowhere near FLUXTUI_HOME
        denied = f"cannot read the data set folder {_show(path)}: permission denied; let yourself read and enter it (chmod u+rx)"
        raise StorageError(denied, error.errno) from error
    except OSError as error:
        raise StorageError.of(error, "read the data set folder", _show(path)) from error
    return sorted(shown, key=lambda entry: os.fsencode(entry.name))


def must_start(path: Path, pairs: Pairs, caption_extension: str = ".txt", trigger: str = "") -> None:
    """Raises `UsageError`, one sentence that says what to fix, where a training could not start from the pairs.

    An image without a caption is taken where there is a trigger word, which then is its caption.
    """
    problem = _problem(path, pairs, caption_extension, trigger)
    if problem:
        kinds = (pairs.irregular, any(pair.caption for pair in pairs.unread), pairs.orphans, pairs.rivals)
        is_one = sum(map(bool, (*kinds, pairs.without_caption and not trigger))) <= 1
        raise UsageError(problem if is_one else f"{problem[:-1]}; fluxtui check {_show(path)} names what else is to be fixed.")


def _problem(path: Path, pairs: Pairs, extension: str, trigger: str) -> str:
    if pairs.irregular:
        return f"{_show(pairs.irregular[0])} is not a regular file; replace it or move it away."
    if not pairs.items and pairs.folders:
        return (
            f"{_show(path)} holds no images itself; give one of its folders, such as {_show(pairs.folders[0])}, "
            "or set dataset.recursive=true for all of them."
        )
    if not pairs.items:
        return f"{_show(path)} holds no images; put at least one there ({', '.join(sorted(IMAGE_EXTENSIONS))})."
    captioned = [pair.image for pair in pairs.unread if pair.caption]
    if captioned:
        return f"{not_read(_show(captioned[0]))}, or move it and its caption away{_more(len(captioned))}."
    if pairs.orphans:
        more = _more(len(pairs.orphans))
        return f"The caption {_show(pairs.orphans[0])} has no image of its name{more}; add the image or move the caption away."
    if pairs.rivals:
        return f"{_show(pairs.rivals[0])} is a second caption of its image{_more(len(pairs.rivals))}; keep one of the two."
    bare = pairs.without_caption
    if bare and not trigger:
        name = clean(bare[0].with_suffix(extension).name, 100)
        more = _more(len(bare))
        return f"{_show(bare[0])} has no caption{more}; write it into {name}, or set dataset.trigger, which is then its caption."
    return ""


def _more(count: int) -> str:
    return f" ({count - 1} more like it)" if count > 1 else ""


def _show(path: Path) -> str:
    return clean(str(path), 300)
