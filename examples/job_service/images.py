"""``thumbnail``: a picture, made small. Pillow works in C with the lock released: a thread will do."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from PIL import Image, ImageDraw, UnidentifiedImageError

from windlass import NonRetryable, Registry, SyncContext

from .settings import Settings

__all__ = ["tasks"]

tasks = Registry()

_MOST_PIXELS = 40_000_000
Side = Annotated[int, Meta(ge=1, le=4096)]


class BadPicture(NonRetryable):
    """What was given is no picture that this service reads."""


@tasks.task(timeout="1m", max_attempts=3)
def thumbnail(
    ctx: SyncContext[Settings],
    path: str | None = None,
    image: bytes | None = None,
    width: Side = 128,
    height: Side = 128,
) -> dict[str, object]:
    """Fit a picture into width × height.

    The picture is a file in the service's folder of pictures (``path``), or comes with the payload in
    base64 (``image``); with neither, a sample is drawn.
    """
    settings = ctx.resources

    picture = _open(settings.pictures, path, image)
    before = picture.size
    picture.thumbnail((width, height))
    saved = _save(picture, settings.thumbnails / f"{ctx.job.id}.png")

    return {"file": str(saved), "size": picture.size, "before": before}


def _open(folder: Path, path: str | None, image: bytes | None) -> Image.Image:
    if path is None and image is None:
        return _sample()
    try:
        with Image.open(_inside(folder, path) if path else io.BytesIO(image or b"")) as picture:
            # The size is known before the pixels are unpacked: a few bytes can claim gigabytes.
            if picture.width * picture.height > _MOST_PIXELS:
                raise BadPicture(f"{picture.width}×{picture.height} pixels are too many to read.")
            return picture.convert("RGBA")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise BadPicture(str(error)) from error


def _inside(folder: Path, path: str) -> Path:
    """*path* below *folder*; whoever may post jobs may not read the rest of the disk."""
    found = (folder / path).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise BadPicture(f"{path!r:.80} lies outside of the folder of pictures.")
    return found


def _sample() -> Image.Image:
    picture = Image.new("RGBA", (640, 480), "#1d3557")
    draw = ImageDraw.Draw(picture)
    for step in range(12):
        draw.ellipse((20 * step, 15 * step, 640 - 20 * step, 480 - 15 * step), outline="#f1faee")
    return picture


def _save(picture: Image.Image, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(".part")
    picture.save(draft, format="PNG")
    return draft.replace(target)
