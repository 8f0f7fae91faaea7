"""Scenes: three to five digits of differing sizes on a coloured texture.

A synthetic set for attention over images with more than one thing in them: which digit
is the largest, where everything is, and a sentence that says so. On a canvas of side S

    the row's own digit is the largest, 0.42 S to 0.5 S pixels along its longer side,
    and is anywhere; the others have 0.17 S to 0.24 S and never meet it or each other;
    each has a bright colour of its own, of any hue;
    the texture is a smooth random cloud in dim colours.

A batch holds, for B examples of up to N = 5 digits, the largest first:

    image         float32 [B, S, S, 3] in 0..255
    label         int32 [B], class of the largest
    objects       bool [B, S, S], where the ink of the largest is
    boxes         float32 [B, N, 4], (x0, y0, x1, y1) in pixels: the edges of the frame
                  of the digit's ink, (0, 0) the upper left corner of the image; x1 and
                  y1 are outside; zeros where there is no digit
    boxes_mask    bool [B, N], where there is a digit
    labels        int32 [B, N], class of each; -1 where there is no digit
    caption       int32 [B, L], numbers of words in `VOCABULARY`: "a large 3 above a
                  small 7 and left of a small 2", every digit once, how the largest lies
                  to each of the others (by the centres of their boxes, along the axis
                  on which they are farther apart), an end, and padding; `WORDS` makes
                  them a string
    caption_mask  bool [B, L], True up to the end
    target        int32 [B, L], the caption, as models that write it have it
    target_mask   bool [B, L], its mask
    target_in     int32 [B, L], a start, and the caption without its last word
    named         int32 [B, L], which of the digits each word of it names, -1 for none
"""

import collections
import re
from collections.abc import Mapping

import numpy as np

from attn.data import textures
from attn.data.digits import ink, warp
from attn.data.digits.pool import Pool
from attn.data.draws import integers, named, other_rows, uniform
from attn.data.source import Most
from attn.data.text.vocabulary import Vocabulary

MOST = 5  # digits
LARGE, SMALL = (0.42, 0.5), (0.17, 0.24)  # of the canvas, at most 1/2 and 1/4
SLOTS = 6  # places for small digits

# What the random numbers of an example are for.
DRAWS = {
    "count": 1,
    "others": MOST - 1,
    "sizes": MOST,
    "place": 2,
    "slots": SLOTS,
    "shifts": 2 * (MOST - 1),
    "hue": MOST,
    "saturation": MOST,
    "cloud": textures.DRAWS,
}

VOCABULARY = (
    *("", "<end>", "a", "and", "large", "small"),
    *("above", "below", "left of", "right of"),
    *map(str, range(10)),
    "<start>",
)
WORDS = Vocabulary(VOCABULARY, marks=("", "<end>", "<start>"))
LENGTH = 3 + 5 * (MOST - 1)  # of a caption: "a large 3", "above a small 7 and", ...
_WORD = {word: number for number, word in enumerate(VOCABULARY)}


def claims(caption: str) -> Mapping[str, collections.Counter]:
    """What a caption says, right or wrong, with how often it says so.

    A model may write what is no sentence of the grammar; then these are what parts of
    it say.

    Returns:
        "things", such as ("large", "3"), and "relations" of the largest to others,
        such as ("above", "7").
    """
    things = re.findall(r"\b(large|small) (\d)", caption)
    where = r"(above|below|left of|right of) a (?:large|small) (\d)"
    relations = re.findall(where, caption)
    found = {"things": things, "relations": relations}
    return {kind: collections.Counter(said) for kind, said in found.items()}


FACTS = {
    "max_objects": Most(MOST, "a scene"),
    "vocab_size": len(VOCABULARY),
    "max_length": LENGTH,
    "pad": _WORD[""],
    "start": _WORD["<start>"],
    "end": _WORD["<end>"],
    "tokenizer": WORDS,
    "claims": claims,
    "grounded": True,
}


def scene(
    pool: Pool, rows: np.ndarray, draws: np.ndarray, side: int = 64
) -> dict[str, np.ndarray]:
    """Scenes of digits, with arguments as in `attn.data.digits.compositions`.

    Draws: `DRAWS`.
    """
    drawn = named(draws, DRAWS)
    chosen = other_rows(drawn["others"], rows, pool.size)
    chosen = np.concatenate([rows[:, None], chosen], axis=1)
    there = np.arange(MOST) < 3 + integers(drawn["count"], MOST - 2)
    pixels, frame = pool.pixels[chosen, :, :, 0], pool.frames[chosen]
    boxes = _layout(drawn, frame[..., 2:], side)
    colours = textures.bright(drawn["hue"], drawn["saturation"])

    planes = textures.cloud(drawn["cloud"], *[textures.pixels(side)] * 2)
    objects = np.zeros((len(rows), side, side), bool)
    for some, room in ((slice(0, 1), side // 2), (slice(1, MOST), side // 4)):
        covers = _covers(pixels[:, some], frame[:, some], boxes[:, some], room)
        _draw(planes, covers, boxes[:, some], colours[:, some], there[:, some])
        if some.start == 0:
            _mark(objects, covers[:, 0], boxes[:, 0])
    boxes = np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)
    boxes = np.where(there[..., None], boxes, 0).astype(np.float32)
    classes = np.where(there, pool.labels[chosen], -1).astype(np.int32)
    caption = _captions(boxes, classes)
    return {
        "image": _channels_last(planes),
        "label": pool.labels[rows],
        "objects": objects,
        "boxes": boxes,
        "boxes_mask": there,
        "labels": classes,
        "caption": caption,
        "caption_mask": caption > 0,
        **_written(caption, there),
    }


def _layout(drawn: dict[str, np.ndarray], shapes: np.ndarray, side: int) -> np.ndarray:
    """First column and row, width and height of every digit: int [B, N, 4].

    The largest digit lies anywhere. As it is no wider and no higher than half of the
    canvas, it leaves a strip of a quarter or more on one side and above or below.
    An upright strip at that edge of the canvas is cut into four slots, and what a
    level one has beside it into two. All are large enough for any small digit.

    Args:
        drawn: the draws by name.
        shapes: [B, N, 2], width and height of the digits' ink.
        side: of the canvas.
    """
    low, high = np.array([LARGE, *[SMALL] * (MOST - 1)]).T
    longest = np.floor(uniform(drawn["sizes"], low, high) * side)
    sizes = longest[..., None] * shapes / shapes.max(axis=-1, keepdims=True)
    sizes = np.maximum(np.rint(sizes), 1).astype(np.intp)
    large = integers(drawn["place"], side - sizes[:, 0] + 1)

    before, after = large, side - large - sizes[:, 0]
    strips = np.minimum(np.maximum(before, after), side // 2)
    at_start = before >= after
    # Slots as first column and row, width and height.
    slots = np.empty((len(large), SLOTS, 4), np.intp)
    (across, down), (left, upper) = strips.T, at_start.T
    edges = side * np.arange(5) // 4
    slots[:, :4, 0] = np.where(left, 0, side - across)[:, None]
    slots[:, :4, 1] = edges[:-1]
    slots[:, :4, 2] = across[:, None]
    slots[:, :4, 3] = np.diff(edges)
    half = (side - across) // 2
    slots[:, 4, 0] = np.where(left, across, 0)
    slots[:, 5, 0] = slots[:, 4, 0] + half
    slots[:, 4:, 1] = np.where(upper, 0, side - down)[:, None]
    slots[:, 4:, 2] = half[:, None]
    slots[:, 4:, 3] = down[:, None]

    taken = np.argsort(drawn["slots"], axis=1, kind="stable")[:, : MOST - 1]
    slots = np.take_along_axis(slots, taken[..., None], axis=1)
    shifts = drawn["shifts"].reshape(-1, MOST - 1, 2)
    small = slots[..., :2] + integers(shifts, slots[..., 2:] - sizes[:, 1:] + 1)
    corners = np.concatenate([large[:, None], small], axis=1)
    return np.concatenate([corners, sizes], axis=-1)


def _covers(
    digits: np.ndarray, frames: np.ndarray, boxes: np.ndarray, room: int
) -> np.ndarray:
    """Digits resized so that the frame of the ink just fills the box.

    Args:
        digits: uint8 [B, n, 28, 28].
        frames: [B, n, 4], first column and row, width and height of their ink.
        boxes: [B, n, 4], of which width and height count.
        room: side of the result, no box being larger.

    Returns:
        float32 [B, n, room, room] in [0, 1], the boxes in the upper left corners.
        What is outside of them is not for use.
    """
    step = (frames[..., 2:] / boxes[..., 2:]).reshape(-1, 2)
    # Edges meet edges, which lie half a pixel before the first centre.
    shift = frames[..., :2].reshape(-1, 2) - 0.5 + 0.5 * step
    flat = digits.reshape(-1, *digits.shape[2:])
    where = lambda part: warp.upright(step[part], shift[part], room)
    covers = warp.warped(flat, where, room)
    covers *= 1 / 255
    return covers.reshape(*digits.shape[:2], room, room)


def _draw(
    planes: np.ndarray,
    covers: np.ndarray,
    boxes: np.ndarray,
    colours: np.ndarray,
    there: np.ndarray,
) -> None:
    """Lays coloured digits over images, one by one.

    Boxes differ in size, and slices of them are several times as fast as indices of
    all their pixels at once.

    Args:
        planes: float32 [B, 3, S, S], drawn into.
        covers: [B, n, room, room], how much of the digit's colour is seen.
        boxes: int [B, n, 4], first column and row, width and height.
        colours: [B, n, 3].
        there: [B, n], whether there is a digit.
    """
    colours = colours[..., None, None]
    places = boxes.tolist()
    for b, k in np.argwhere(there).tolist():
        left, top, width, height = places[b][k]
        part = planes[b, :, top : top + height, left : left + width]
        part += covers[b, k, :height, :width] * (colours[b, k] - part)


def _mark(objects: np.ndarray, covers: np.ndarray, boxes: np.ndarray) -> None:
    """Marks in `objects` [B, S, S] where one digit each, as in `_draw`, has ink."""
    for b, (left, top, width, height) in enumerate(boxes.tolist()):
        marked = covers[b, :height, :width] >= ink.INK / 255
        objects[b, top : top + height, left : left + width] = marked


def _channels_last(planes: np.ndarray) -> np.ndarray:
    """[B, 3, S, S] -> [B, S, S, 3]; a channel at a time, as that is the fastest."""
    image = np.empty((len(planes), *planes.shape[2:], 3), planes.dtype)
    for channel in range(3):
        image[..., channel] = planes[:, channel]
    return image


def _written(caption: np.ndarray, there: np.ndarray) -> dict[str, np.ndarray]:
    """Captions [B, L] for a model that writes them word by word.

    Args:
        caption: as of a batch.
        there: [B, N], where there is a digit.
    """
    start = np.full((len(caption), 1), _WORD["<start>"], np.int32)
    # the third word is the first digit, the seventh and every fifth behind it another
    digits = np.array([2, *range(6, LENGTH, 5)])
    whose = np.full(caption.shape, -1, np.int32)
    whose[:, digits] = np.where(there, np.arange(MOST), -1)
    return {
        "target": caption.copy(),
        "target_mask": caption > 0,
        "target_in": np.concatenate([start, caption[:, :-1]], axis=1),
        "named": whose,
    }


def _captions(boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The captions, int32 [B, L], of boxes [B, N, 4] and labels [B, N]."""
    centres = boxes[..., :2] + boxes[..., 2:]
    x, y = np.moveaxis(centres[:, 1:] - centres[:, :1], -1, 0)
    level = np.where(x > 0, _WORD["left of"], _WORD["right of"])
    upright = np.where(y > 0, _WORD["above"], _WORD["below"])
    relation = np.where(np.abs(y) >= np.abs(x), upright, level)

    caption = np.zeros((len(boxes), LENGTH), np.int32)
    caption[:, :2] = _WORD["a"], _WORD["large"]
    digit = labels + _WORD["0"]
    caption[:, 2] = digit[:, 0]
    said = np.empty((*relation.shape, 5), np.int32)
    said[..., 0] = relation
    said[..., 1:3] = _WORD["a"], _WORD["small"]
    said[..., 3] = digit[:, 1:]
    said[..., 4] = _WORD["and"]
    there = labels >= 0
    said[~there[:, 1:]] = 0
    caption[:, 3:] = said.reshape(len(boxes), -1)
    # The end takes the place of the last "and".
    end = 5 * there.sum(axis=1) - 3
    caption[np.arange(len(boxes)), end] = _WORD["<end>"]
    return caption
