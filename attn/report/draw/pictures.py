"""Draws strips of attention as small pictures, ready to stand in a page.

Images and maps are enlarged without smoothing, so that a picture shows the
resolution of the attention. A picture is at most about SIDE pixels wide
and has few colours, which keeps a page with hundreds of them small.
"""

import base64
import io
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from scipy import ndimage

from attn.report.draw import style
from attn.report.draw.maps import Strip

SIDE = 112
COLOURS = 64
HEAT = "inferno"
HEAT_SHARE = 0.68  # of the heat in the mix with the image under it
RING, RIM, PALE = (86, 180, 233), (0, 0, 0), (255, 255, 255)
LINE, BORDER, CORNER = (86, 180, 233), (230, 159, 0), (230, 159, 0)
# Grids reach out of the image, so their pictures have this much room on each side.
MARGIN = 0.2
SUPERSAMPLE = 4
# Maps are kept in float16: what differs by less is the same.
FLAT = 2e-3
GRID_LINES = 7


def encode(picture: PIL.Image.Image, *, exact: bool = False) -> str:
    """The picture as a data URI; a PNG, with few colours unless it must be exact."""
    buffer = io.BytesIO()
    if picture.mode != "RGBA" and not exact:
        picture = picture.quantize(COLOURS, dither=PIL.Image.Dither.NONE)
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def encode_photo(picture: PIL.Image.Image) -> str:
    """The picture as a data URI; a JPEG, for large ones."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def plain(image: np.ndarray) -> PIL.Image.Image:
    """An image [H, W, 3] in [0, 1], enlarged by a whole factor or made smaller."""
    height, width = image.shape[:2]
    picture = PIL.Image.fromarray((image * 255).round().astype(np.uint8))
    factor = SIDE // max(height, width)
    if factor:
        size = (width * factor, height * factor)
        return picture.resize(size, PIL.Image.Resampling.NEAREST)
    picture.thumbnail((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
    return picture


def draw(strip: Strip, images: np.ndarray) -> list[PIL.Image.Image]:
    """One picture of a strip over each image [n, H, W, 3]; a grid's without warps."""
    if strip.form == "grid":
        return [grid(*pair) for pair in zip(images, strip.values, strict=True)]
    low, high = scale(strip)
    span = high - low or math.inf
    shares = np.clip((strip.values - low) / span, 0.0, 1.0)
    pairs = zip(images, shares, strict=True)
    if strip.form == "bars":
        zero = -low / span
        return [bars(share, zero) for share in shares]
    if strip.form == "matrix":
        return [matrix(share) for share in shares]
    return [heat(image, share, strip.query) for image, share in pairs]


def scale(strip: Strip) -> tuple[float, float]:
    """The values at the ends of the colour scale, common to a strip.

    They are the lowest and the highest value; bars start at 0 and reach at least 1,
    as gates do. The ends are equal where a map is the same everywhere.
    """
    low, high = float(strip.values.min()), float(strip.values.max())
    if strip.form == "bars":
        return min(low, 0.0), max(high, 1.0)
    flat = high - low <= FLAT * max(abs(low), abs(high))
    return (low, low) if flat else (low, high)


def heat(
    image: np.ndarray, share: np.ndarray, query: tuple[float, float] | None = None
) -> PIL.Image.Image:
    """A map [h, w] in [0, 1] as heat over the grey image, with the query ringed."""
    under = plain(image).convert("L").convert("RGB")
    over = _coloured(share).resize(under.size, PIL.Image.Resampling.NEAREST)
    picture = PIL.Image.blend(under, over, HEAT_SHARE)
    if query is not None:
        _ring(picture, query)
    return picture


def marked_heat(
    image: np.ndarray, share: np.ndarray, mark: np.ndarray
) -> PIL.Image.Image:
    """As `heat`, with a box [4] or a place [2], in pixels of the image, that asks."""
    size = np.array(image.shape[1::-1])
    if len(mark) == 2:
        column, row = ((mark + 0.0) / size).tolist()
        return heat(image, share, (row, column))
    picture = heat(image, share)
    factor = np.tile(picture.size / size, 2)
    x0, y0, x1, y1 = (mark * factor).tolist()
    pen = PIL.ImageDraw.Draw(picture)
    for grown, colour in ((1, RIM), (0, RING)):
        box = (x0 - grown, y0 - grown, max(x1 - 1, x0) + grown, max(y1 - 1, y0) + grown)
        pen.rectangle(box, outline=colour, width=2)
    return picture


def query_area(places: np.ndarray, colours: Sequence[str]) -> PIL.Image.Image:
    """Places [M, 2], (x, y) in [0, 1], as dots of some colours on a square."""
    side = SIDE * SUPERSAMPLE
    picture = PIL.Image.new("RGB", (side, side), "white")
    pen = PIL.ImageDraw.Draw(picture)
    for (x, y), colour in zip((places * side).tolist(), colours, strict=True):
        radius = 1.3 * SUPERSAMPLE
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    pen.rectangle((0, 0, side - 1, side - 1), outline="#a0a0a0", width=SUPERSAMPLE)
    return picture.resize((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)


def matrix(share: np.ndarray) -> PIL.Image.Image:
    """A matrix [T, S] in [0, 1] by itself, SIDE pixels wide."""
    picture = _coloured(share)
    height = max(1, min(SIDE, round(SIDE * share.shape[0] / share.shape[1])))
    return picture.resize((SIDE, height), PIL.Image.Resampling.NEAREST)


def bars(share: np.ndarray, zero: float = 0.0) -> PIL.Image.Image:
    """Values [C] in [0, 1] as bars from the height `zero`, 0 at the foot.

    The ground is nearly transparent, so that it suits light and dark pages.
    """
    height, ground, ink = SIDE // 2, (128, 128, 128, 44), (0, 114, 178, 255)
    columns = np.arange(SIDE) * len(share) // SIDE
    level = np.linspace(1, 0, height)[:, None]
    values = share[columns][None, :]
    inside = (level <= np.maximum(values, zero)) & (level >= np.minimum(values, zero))
    pixels = np.where(inside[..., None], np.uint8(ink), np.uint8(ground))
    return PIL.Image.fromarray(pixels)


def grid(image: np.ndarray, points: np.ndarray) -> PIL.Image.Image:
    """The points [H, W, 2], (x, y) in [-1, 1], as lines over the image.

    The border is thick, its first corner is a dot, so that turns and flips show.
    """
    picture = _with_margin(plain(image), SUPERSAMPLE)
    side = np.array(picture.size) / (1 + 2 * MARGIN)
    places = (MARGIN + (points + 1) / 2) * side
    places = np.clip(places, -4 * side, 5 * side)  # a wild grid must not overflow
    pen = PIL.ImageDraw.Draw(picture)
    for lines in (places, places.transpose(1, 0, 2)):
        for i in np.linspace(0, len(lines) - 1, min(GRID_LINES, len(lines))).round():
            edge = i in (0, len(lines) - 1)
            pen.line(
                [tuple(place) for place in lines[int(i)].tolist()],
                fill=BORDER if edge else LINE,
                width=(7 if edge else 3),
                joint="curve",
            )
    _dot(pen, places[0, 0], 4 * SUPERSAMPLE, CORNER)
    small = picture.size[0] // SUPERSAMPLE, picture.size[1] // SUPERSAMPLE
    return picture.resize(small, PIL.Image.Resampling.LANCZOS)


def warp(image: np.ndarray, points: np.ndarray) -> PIL.Image.Image:
    """The image as a grid [H, W, 2] reads it: bilinear, zero outside.

    -1 and 1 are the outer edges of the image, PyTorch's `align_corners=False`.
    """
    height, width = image.shape[:2]
    column = ((points[..., 0] + 1) * width - 1) / 2
    row = ((points[..., 1] + 1) * height - 1) / 2
    places = [np.clip(row, -2, height + 1), np.clip(column, -2, width + 1)]
    planes = [
        ndimage.map_coordinates(image[..., c], places, order=1, mode="grid-constant")
        for c in range(image.shape[-1])
    ]
    return plain(np.clip(np.stack(planes, axis=-1), 0.0, 1.0))


def path(image: np.ndarray, places: np.ndarray, sides: np.ndarray) -> PIL.Image.Image:
    """Places [T, 2], (x, y) in [-1, 1], as a line over the image [H, W, 3].

    The first one is a ring, the last one a full dot, and round each of them is the
    frame of what is seen there, `sides` (height, width) in pixels of the image.
    """
    height, width = image.shape[:2]
    enlarged = -(-SIDE // max(height, width))  # up, as lines need room
    small, factor = (width * enlarged, height * enlarged), SUPERSAMPLE * enlarged
    picture = PIL.Image.fromarray((image * 255).round().astype(np.uint8))
    large = (width * factor, height * factor)
    picture = picture.resize(large, PIL.Image.Resampling.NEAREST)
    at = (places + 1) / 2 * np.array(large)
    half = sides[::-1] / 2 * factor
    pen = PIL.ImageDraw.Draw(picture)
    for place in at:
        corners = np.concatenate([place - half, place + half]).tolist()
        pen.rectangle(corners, outline=LINE, width=3)
    pen.line([tuple(place) for place in at.tolist()], fill=BORDER, width=7)
    for place in at[1:-1]:
        _dot(pen, place, 2 * SUPERSAMPLE, BORDER)
    _dot(pen, at[-1], 4 * SUPERSAMPLE, CORNER)
    radius = 4 * SUPERSAMPLE
    ring = np.concatenate([at[0] - radius, at[0] + radius]).tolist()
    pen.ellipse(ring, outline=CORNER, width=2 * SUPERSAMPLE)
    return picture.resize(small, PIL.Image.Resampling.LANCZOS)


def mosaic(tiles: np.ndarray) -> PIL.Image.Image:
    """Images [R, T, h, w, 3] in [0, 1] in R rows of T, with lines between them."""
    rows, columns, height, width = tiles.shape[:4]
    factor = max(1, 2 * SIDE // (columns * (width + 1)))
    step = np.array([width, height]) * factor + 2
    ground = PIL.Image.new("RGB", tuple((step * (columns, rows) - 2).tolist()), RING)
    for row, column in np.ndindex(rows, columns):
        tile = (tiles[row, column] * 255).round().astype(np.uint8)
        size = (width * factor, height * factor)
        tile = PIL.Image.fromarray(tile).resize(size, PIL.Image.Resampling.NEAREST)
        ground.paste(tile, tuple((step * (column, row)).tolist()))
    return ground


def boxes(
    image: np.ndarray,
    places: np.ndarray,
    names: Sequence[str],
    colours: Sequence[int] | None = None,
) -> PIL.Image.Image:
    """Boxes [M, 4], (x0, y0, x1, y1) in pixels, with their names on the image.

    Without numbers of colours each has another one.
    """
    picture = _roomy(image)
    factor = np.array(picture.size) / image.shape[1::-1]
    colours = range(len(names)) if colours is None else colours
    draw_boxes(picture, places * np.tile(factor, 2), names, colours)
    return picture


def pose(image: np.ndarray, joints: np.ndarray, limbs: np.ndarray) -> PIL.Image.Image:
    """Joints [J, 2], (x, y) in pixels, on the image, and limbs [L, 2] between them.

    A limb has the same colour in all pictures. Joints that are NaN are not drawn, nor
    limbs that begin or end there.
    """
    picture = _roomy(image)
    small, large = picture.size, tuple(SUPERSAMPLE * side for side in picture.size)
    picture = picture.resize(large, PIL.Image.Resampling.NEAREST)
    at = joints * (np.array(large) / image.shape[1::-1])
    pen = PIL.ImageDraw.Draw(picture)
    for number, ends in enumerate(at[limbs]):
        if np.isfinite(ends).all():
            line = [tuple(end) for end in ends.tolist()]
            colour = style.OKABE_ITO[number % len(style.OKABE_ITO)]
            pen.line(line, fill=RIM, width=4 * SUPERSAMPLE)
            pen.line(line, fill=colour, width=3 * SUPERSAMPLE)
    for place in at[np.isfinite(at).all(axis=1)]:
        _dot(pen, place, 2 * SUPERSAMPLE, RIM)
        _dot(pen, place, SUPERSAMPLE, PALE)
    return picture.resize(small, PIL.Image.Resampling.LANCZOS)


def draw_boxes(
    picture: PIL.Image.Image,
    places: np.ndarray,
    names: Sequence[str],
    colours: Sequence[int],
) -> None:
    """Boxes [M, 4], (x0, y0, x1, y1) in pixels, with their names, on a picture.

    Args:
        picture: in RGB, drawn on.
        places: the boxes.
        names: that stand above them, or inside where there is no room.
        colours: numbers of colours, which repeat.
    """
    large = max(picture.size) > 2 * SIDE
    font = PIL.ImageFont.load_default(13 if large else 10)
    pen = PIL.ImageDraw.Draw(picture)
    for place, name, number in zip(places.tolist(), names, colours, strict=True):
        colour = style.OKABE_ITO[number % len(style.OKABE_ITO)]
        x0, y0, x1, y1 = place
        x1, y1 = max(x1 - 1, x0), max(y1 - 1, y0)
        pen.rectangle((x0, y0, x1, y1), outline=colour, width=3 if large else 2)
        _, _, right, bottom = pen.textbbox((0, 0), name, font=font)
        # inside of the picture, wherever the box is
        y = y0 - bottom - 2 if y0 >= bottom + 2 else y0
        x = min(max(x0, 0), max(picture.size[0] - right - 4, 0))
        y = min(max(y, 0), max(picture.size[1] - bottom - 3, 0))
        pen.rectangle((x, y, x + right + 3, y + bottom + 2), fill=colour)
        pen.text((x + 2, y + 1), name, fill="white", font=font)


def colour_scale() -> str:
    """The colours of the heat maps as a CSS gradient, low values left."""
    colours = matplotlib.colormaps[HEAT](np.linspace(0, 1, 9))
    stops = ", ".join(matplotlib.colors.to_hex(colour) for colour in colours)
    return f"linear-gradient(to right, {stops})"


def _roomy(image: np.ndarray) -> PIL.Image.Image:
    """As `plain`, but twice as large where there would be no room to draw on it."""
    picture = plain(image)
    if max(picture.size) < 0.75 * SIDE:
        size = (2 * picture.size[0], 2 * picture.size[1])
        picture = picture.resize(size, PIL.Image.Resampling.NEAREST)
    return picture


def _coloured(share: np.ndarray) -> PIL.Image.Image:
    pixels = matplotlib.colormaps[HEAT](share, bytes=True)[..., :3]
    return PIL.Image.fromarray(np.ascontiguousarray(pixels))


def _ring(picture: PIL.Image.Image, query: tuple[float, float]) -> None:
    pen = PIL.ImageDraw.Draw(picture)
    row, column = query[0] * picture.size[1], query[1] * picture.size[0]
    for radius, colour, width in ((7, RIM, 4), (6, RING, 2)):
        box = (column - radius, row - radius, column + radius, row + radius)
        pen.ellipse(box, outline=colour, width=width)


def _dot(
    pen: PIL.ImageDraw.ImageDraw, place: np.ndarray, radius: int, colour: tuple
) -> None:
    x, y = place.tolist()
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _with_margin(picture: PIL.Image.Image, factor: int) -> PIL.Image.Image:
    """The picture enlarged, on a grey ground with MARGIN of its size on each side."""
    width, height = picture.size[0] * factor, picture.size[1] * factor
    room = (round(width * (1 + 2 * MARGIN)), round(height * (1 + 2 * MARGIN)))
    ground = PIL.Image.new("RGB", room, (120, 120, 120))
    large = picture.resize((width, height), PIL.Image.Resampling.NEAREST)
    ground.paste(large, (round(width * MARGIN), round(height * MARGIN)))
    return ground
