"""Pictures as files: which form is meant, how it is made, and where it goes."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vnet.base.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vnet.picture.heat import Heat
    from vnet.picture.scene import Scene


class GraphFormat(StrEnum):
    """The forms of `vnet graph`."""

    SVG = "svg"
    PNG = "png"
    MERMAID = "mermaid"
    DOT = "dot"
    DRAWIO = "drawio"
    HTML = "html"


class MatrixFormat(StrEnum):
    """The forms of `vnet policy matrix`."""

    TEXT = "text"
    SVG = "svg"
    PNG = "png"
    HTML = "html"
    CSV = "csv"


Form = TypeVar("Form", bound=StrEnum)
_ENDINGS = {"mmd": "mermaid", "gv": "dot", "htm": "html", "txt": "text"}
RENDERER = "rsvg-convert"
SCALE = 2
"""Pixels of a PNG for each one of the SVG, so that small text is sharp."""
LARGEST_PIXELS = 30_000
"""The longest side that cairo, which draws for rsvg-convert, can do: 32,767."""
_TIME_S = 120
CROSS = "point at a cell to see what is open, click to keep row and column, Escape ends that"
FOLLOW = "point at a VM to follow its connections, click to keep them, Escape ends that"


def form_of(given: Form | None, write: str | None, forms: type[Form], default: Form) -> Form:
    """The form that is meant, by what is given or by the file's ending."""
    if given is not None:
        return given
    ending = Path(write or "").suffix.lstrip(".").lower()
    if not ending:
        return default
    try:
        return forms(_ENDINGS.get(ending, ending))
    except ValueError:
        raise UsageError(
            f"what is a .{ending} file? give --format, one of {', '.join(map(str, forms))}"
        ) from None


def graph(scene: Scene, form: GraphFormat) -> bytes:
    """The file of a scene."""
    match form:
        case GraphFormat.DOT:
            from vnet.picture.dot import dot

            return dot(scene).encode()
        case GraphFormat.MERMAID:
            from vnet.picture.mermaid import mermaid

            return mermaid(scene).encode()
        case GraphFormat.DRAWIO:
            from vnet.picture.drawio import drawio
            from vnet.picture.layout import layout

            return drawio(layout(scene)).encode()
        case GraphFormat.HTML:
            from vnet.picture.html import page
            from vnet.picture.layout import layout
            from vnet.picture.svg import lines

            return page(scene.title, lines(layout(scene)), FOLLOW).encode()
        case GraphFormat.SVG | GraphFormat.PNG:
            from vnet.picture.layout import layout
            from vnet.picture.svg import svg

            placed = layout(scene)
            drawn = svg(placed)
            return png(drawn, placed.width, placed.height) if form is GraphFormat.PNG else drawn.encode()


def matrix(heat: Heat, form: MatrixFormat, text: Callable[[Heat], str]) -> bytes:
    """The file of a heat map; `text` is what makes it for a terminal."""
    match form:
        case MatrixFormat.TEXT:
            return text(heat).encode()
        case MatrixFormat.CSV:
            from vnet.picture.heat import table

            return table(heat).encode()
        case _:
            from vnet.picture.heat_layout import heat_layout
            from vnet.picture.heat_svg import lines, svg
            from vnet.picture.html import page

            placed = heat_layout(heat)
            if form is MatrixFormat.HTML:
                return page(heat.title, lines(placed), CROSS).encode()
            drawn = svg(placed)
            return png(drawn, placed.width, placed.height) if form is MatrixFormat.PNG else drawn.encode()


def put(write: str | None, data: bytes) -> None:
    """Write a file, all of it or none; `-` and None are standard output.

    What is there and is no file, such as /dev/stdout, a pipe or a device, is written into, never replaced.
    """
    if write in (None, "-"):
        if sys.stdout.isatty() and data.startswith(b"\x89PNG"):
            raise UsageError("a PNG is no text: write it with -w FILE.png")
        sys.stdout.buffer.write(data)
        return
    assert write is not None
    target = Path(write).resolve()
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
            _replace(target, data)
    except OSError as error:
        raise HostError(f"cannot write {write}: {error.strerror}") from error


def _replace(target: Path, data: bytes) -> None:
    fresh = target.with_name(f".{target.name[:99]}.{os.getpid()}.new")
    with fresh.open("xb") as file:
        try:
            file.write(data)
            file.close()
            fresh.replace(target)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


def png(svg: str, width: float, height: float) -> bytes:
    """An SVG as PNG, drawn by librsvg. Raises HostError if that is not there."""
    import shutil
    import subprocess

    tool = shutil.which(RENDERER)
    if tool is None:
        raise HostError(f"PNG needs {RENDERER}: apt-get install librsvg2-bin fonts-dejavu-core; or write SVG")
    zoom = min(SCALE, LARGEST_PIXELS / max(width, height))
    words = [tool, "--format", "png", "--zoom", f"{zoom:g}", "--unlimited"]
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            words, input=svg.encode(), capture_output=True, check=False, timeout=_TIME_S, env=environment
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"{RENDERER} did not end within {_TIME_S} s; write SVG instead") from None
    if done.returncode:
        raise HostError(f"{' '.join(words)} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
