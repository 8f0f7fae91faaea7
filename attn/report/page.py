"""Writes sweeps as one HTML page that needs nothing but itself."""

import datetime
import os
import pathlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from attn.report import maps, pictures, plots, statistics, table
from attn.report.plots import Look
from attn.report.results import Point, Sweep
from attn.report.table import Row
from attn.train import workdir

IMAGES = 8
COSTS = {"parameters": "parameters", "macs": "MACs", "ms_per_step": "ms per step"}
TIME_KEYS = ("started", "time", "date", "when")
# What an environment says is shown apart from these, which every point has its own.
OWN_KEYS = (*TIME_KEYS, "hostname", "pid", "argv", "command", "workdir")


def write(sweeps: Sequence[Sweep], output: pathlib.Path) -> pathlib.Path:
    """Writes the page of some sweeps to `output` and returns its path.

    The file appears whole or not at all.
    """
    page = render(sweeps)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.{os.getpid()}")
    part.write_text(page, encoding="utf-8")
    part.replace(output)
    return output


def render(sweeps: Sequence[Sweep]) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html").render(
        sweeps=[_sweep(sweep) for sweep in sweeps],
        title=", ".join(sweep.title for sweep in sweeps),
        colour_scale=pictures.colour_scale(),
        confidence=f"{statistics.CONFIDENCE:.0%}".replace("%", " %"),
    )


def _sweep(sweep: Sweep) -> dict[str, Any]:
    """What the template says about one sweep."""
    rows = table.rows(sweep)
    looks = plots.looks(rows)
    learning = [
        plots.learning(rows, "train", "loss", "training loss"),
        plots.learning(rows, "test", "error", "test error, %"),
    ]
    costs = [plots.against(rows, cost, label) for cost, label in COSTS.items()]
    return {
        "title": sweep.title,
        "description": _paragraphs(sweep.description),
        "facts": _facts(sweep),
        "axes": table.axes(sweep) or ["sweep"],
        "rows": _cells(sweep, rows, looks),
        "compared": bool(sweep.baseline) and any(row.baseline for row in rows),
        "baseline": next((row.label for row in rows if row.baseline), None),
        "macs_prefix": table.unit(row.cost("macs") for row in rows)[1],
        "summary": table.summary(rows),
        "notes": table.notes(sweep, rows),
        "legend": list(zip(rows, looks, strict=True)),
        "learning": [plot for plot in learning if plot],
        "costs": [plot for plot in costs if plot],
        "looked": [
            _looked(row, look)
            for row, look in zip(rows, looks, strict=True)
            if row.done
        ],
        "unseen": [row.label for row in rows if not row.done],
        "open": sweep.unfinished,
        "counts": (len(sweep.points) - len(sweep.done), len(sweep.points)),
        "varying": _varying(sweep, rows),
        "shared": _shared([workdir.flat(point.config) for point in sweep.points]),
        "environments": _environments(sweep.points),
    }


def _paragraphs(text: str) -> list[tuple[str, markupsafe.Markup]]:
    """Paragraphs as ("p" or "pre", markup): indented ones are commands, `x` code."""
    found = []
    for part in filter(str.strip, text.split("\n\n")):
        if all(line.startswith("    ") for line in part.splitlines() if line):
            found.append(("pre", markupsafe.escape(textwrap.dedent(part.strip("\n")))))
            continue
        marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(part)))
        found.append(("p", markupsafe.Markup(marked)))
    return found


def _facts(sweep: Sweep) -> list[str]:
    """One-line facts under the title."""
    done = sweep.done
    facts = [f"{len(done)} of {len(sweep.points)} points finished"]
    steps = sorted({p.result.steps for p in done if p.result.steps is not None})
    if steps:
        facts.append(f"{' or '.join(f'{step:,}' for step in steps)} steps each")
    examples = {p.result.examples for p in done if p.result.examples is not None}
    if len(examples) == 1:
        facts.append(f"{examples.pop():,} test examples")
    seconds = [p.result.seconds for p in done if p.result.seconds is not None]
    if seconds:
        facts.append(f"{table.duration(sum(seconds))} of training in all")
    when = _when(sweep.points)
    return [*facts, when] if when else facts


def _when(points: Sequence[Point]) -> str | None:
    """The first start of a point: as its environment tells, else from its file."""
    for point in points:
        for key in TIME_KEYS:
            if isinstance(point.environment.get(key), str):
                time = point.environment[key]
                zone = " UTC" if time.endswith(("+00:00", "Z")) else ""
                return time.replace("T", " ")[:16] + zone
        path = point.directory / "environment.json"
        if path.is_file():
            time = datetime.datetime.fromtimestamp(path.stat().st_mtime)
            return time.strftime("%Y-%m-%d %H:%M")
    return None


def _cells(
    sweep: Sweep, rows: Sequence[Row], looks: Sequence[Look]
) -> list[dict[str, Any]]:
    """The cells of the table as text, with figures aligned by column."""
    cells = table.cells(rows)
    reach = max(
        (abs(end) for row in rows if row.difference for end in _ends(row)), default=0.0
    )
    for column in ("error", "difference", "ms_per_step"):
        _align(cells, column)
    for cell, row, look in zip(cells, rows, looks, strict=True):
        cell["axes"] = [
            table.text(row.axes.get(axis, "")) for axis in table.axes(sweep)
        ] or [row.label]
        cell["row"] = row
        cell["look"] = look
        cell["whisker"] = (
            plots.whisker(row.difference, reach or 1.0, look.colour)
            if row.difference
            else ""
        )
    return cells


def _align(cells: Sequence[dict[str, Any]], column: str) -> None:
    """Gives a mean without an interval the unseen half of the widest other cell.

    Spaces, with which the terminal aligns, are not as wide as signs here.
    """
    halves = [cell[column].partition(f" {table.PLUS_MINUS}") for cell in cells]
    widest = max((sign + half for _, sign, half in halves), key=len, default="")
    for cell, (mean, sign, _) in zip(cells, halves, strict=True):
        if widest and not sign:
            ghost = markupsafe.Markup('<span class="unseen">{}</span>').format(widest)
            cell[column] = markupsafe.escape(mean.rstrip(table.FIGURE_SPACE)) + ghost


def _ends(row: Row) -> tuple[float, float]:
    return row.difference.low, row.difference.high


def _looked(row: Row, look: Look) -> dict[str, Any]:
    """The strips of the first finished point of a row that has some."""
    block = {"row": row, "look": look, "images": [], "strips": [], "remarks": []}
    attention = None
    for point in row.done:
        attention, problem = maps.read(point, IMAGES)
        if attention is not None:
            break
        block["remarks"].append(f"{point.name}: {problem}")
    if attention is None:
        return block
    block["point"] = point
    block["images"] = [
        {"picture": _picture(image), "label": label, "said": said}
        for image, label, said in zip(
            map(pictures.plain, attention.images),
            attention.labels,
            attention.predictions,
            strict=True,
        )
    ]
    found, remarks = maps.strips(attention)
    block["remarks"] += remarks
    for strip in found:
        block["strips"].extend(_strip(strip, attention))
    if not attention.maps:
        block["remarks"].append("it records no attention")
    return block


def _strip(strip: maps.Strip, attention: maps.Attention) -> list[dict[str, Any]]:
    """A line of pictures; a sampling grid has a second one, of what it read."""
    low, high = pictures.scale(strip)
    drawn = pictures.draw(strip, attention.images)
    scaled = strip.form != "grid" and low < high
    same = strip.form == "heat" and low == high
    line = {
        "path": strip.path,
        "what": f"{strip.what}, {table.span(low, high)[0]} everywhere"
        if same
        else strip.what,
        "form": strip.form,
        "scale": table.span(low, high) if scaled else None,
        "pictures": [_picture(picture) for picture in drawn],
    }
    if strip.form != "grid":
        return [line]
    pairs = zip(attention.images, strip.values, strict=True)
    warped = [_picture(pictures.warp(*pair)) for pair in pairs]
    return [line, {**line, "what": "what the grid reads", "pictures": warped}]


def _picture(picture: Any) -> dict[str, Any]:
    width, height = picture.size
    return {"source": pictures.encode(picture), "width": width, "height": height}


def _varying(sweep: Sweep, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The settings in which rows differ: {"name", "values" (one a row)}.

    Those that differ within a row, as the seed does, are not told.
    """
    firsts = [workdir.flat(_first_config(row)) for row in rows]
    own = {
        name
        for row in rows
        for name in _differing([workdir.flat(p.config) for p in row.points])
    }
    differing = [name for name in _differing(firsts) if name not in own]
    # "slots": {} in some rows tells no more than the slots that others fill
    empty = lambda name: all(flat.get(name, {}) == {} for flat in firsts)
    names = [name for name in differing if not empty(name)]
    show = lambda flat, name: table.text(flat[name]) if name in flat else table.DASH
    return [
        {"name": name, "values": [show(flat, name) for flat in firsts]}
        for name in names
    ]


def _first_config(row: Row) -> Mapping[str, Any]:
    return next((point.config for point in row.points if point.config), {})


def _differing(flats: Sequence[Mapping[str, Any]]) -> list[str]:
    flats = [flat for flat in flats if flat]
    names = dict.fromkeys(name for flat in flats for name in flat)
    absent = object()
    return [
        name
        for name in names
        if any(flat.get(name, absent) != flats[0].get(name, absent) for flat in flats)
    ]


def _shared(flats: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What is the same in all of some flat mappings, as (name, value) texts."""
    flats = [flat for flat in flats if flat]
    if not flats:
        return []
    differ = set(_differing(flats))
    return [
        (name, table.text(value))
        for name, value in flats[0].items()
        if name not in differ
    ]


def _environments(points: Sequence[Point]) -> list[tuple[str, str]]:
    """What ran where: each fact with its value, or with the values and who had them."""
    flats = {p.name: workdir.flat(p.environment) for p in points if p.environment}
    facts = []
    for name in dict.fromkeys(name for flat in flats.values() for name in flat):
        if name in OWN_KEYS or not any(flat.get(name) for flat in flats.values()):
            continue
        groups: dict[str, list[str]] = {}
        for point, flat in flats.items():
            groups.setdefault(table.text(flat.get(name)), []).append(point)
        usual = max(groups, key=lambda value: len(groups[value]))
        rest = [f"{v} in {', '.join(who)}" for v, who in groups.items() if v != usual]
        name = name.removeprefix("packages.")
        facts.append((name, "; ".join([usual, *rest])))
    return facts
