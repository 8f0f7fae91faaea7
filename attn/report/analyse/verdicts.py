"""Sentences on what the differences of a table decide, and on how to read them."""

from collections.abc import Iterable, Sequence

from attn.report.analyse import decision, numbers
from attn.report.analyse.table import Row
from attn.report.read.metrics import CORPUS, SHARE
from attn.report.read.results import Sweep

PLUS_MINUS = numbers.PLUS_MINUS
SENSES = {
    "better": "Better than",
    "worse": "Worse than",
    "equivalent": "Equivalent to",
    "not distinguishable": "Not distinguishable from",
}


def summary(rows: Sequence[Row]) -> list[str]:
    """Rows that are better than the baseline, worse, and so on."""
    bases = [row.label for row in rows if row.baseline]
    if not bases:
        return []
    against = bases[0] if len(bases) == 1 else "its baseline"
    said = []
    for word, sense in SENSES.items():
        found = [row for row in rows if row.verdict == word]
        if found:
            said.append(f"{sense} {against}: {named(found, rows)}.")
    more = [row for row in rows if row.uncorrected != row.verdict]
    words = dict.fromkeys(row.uncorrected for row in more)
    parts = [
        f"{word} {named([r for r in more if r.uncorrected == word], rows)}"
        for word in words
    ]
    if parts:
        said.append(f"Only without correction for their number: {'; '.join(parts)}.")
    return said


def named(some: Iterable[Row], rows: Iterable[Row]) -> str:
    """Names of some of the rows; those of one kind together, with their columns."""
    columns = list(dict.fromkeys(row.column for row in rows))
    kinds: dict[str, list[str]] = {}
    for row in some:
        kinds.setdefault(row.kind, []).append(row.column or "")
    if columns == [None]:
        return numbers.joined(kinds)
    return numbers.joined(
        f"{kind} (all {len(columns)})"
        if len(found) == len(columns)
        else f"{kind} ({', '.join(found)})"
        for kind, found in kinds.items()
    )


def notes(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    """Notes on how differences and verdicts came about, and on what they lack."""
    setting = ", ".join(f"{k} = {numbers.text(v)}" for k, v in sweep.baseline.items())
    bases = sum(row.baseline for row in rows)
    said = []
    if sweep.baseline and not bases:
        said.append(f"The baseline ({setting}) is not among the points.")
    if bases > 1:
        said.append(f"The baseline of a row is the one like it with {setting}.")
    compared = [row for row in rows if row.compared and row.compared.error is not None]
    if compared:
        said += [
            *_on_intervals(sweep, compared, rows),
            *_on_correction(compared),
            *_on_rope(sweep),
            *_on_open(compared),
        ]
    return said


def _on_intervals(
    sweep: Sweep, compared: Sequence[Row], rows: Sequence[Row]
) -> list[str]:
    """Notes on what the intervals of the differences cover."""
    alone = [row for row in compared if row.compared.examples is None]
    said = []
    if len(alone) < len(compared):
        said.append(
            "A difference is measured over seeds and test examples: its interval is for"
            " other seeds, and for other examples like these."
        )
    if alone:
        who = "" if len(alone) == len(compared) else f" of {named(alone, rows)}"
        metric = sweep.headline
        why = "what each test example got is not recorded"
        if metric.kind == CORPUS:
            why = f"{metric.label} is no mean over examples"
        said.append(
            f"The differences{who} have intervals over seeds alone, for these test"
            f" examples, as {why}."
        )
        if metric.kind == SHARE:
            said.append(
                "None of them is narrower than the number of test examples allows."
            )
    said.append("Better or worse is a row whose interval leaves zero out.")
    return said


def _on_correction(compared: Sequence[Row]) -> list[str]:
    if len(compared) < 2:
        return []
    return [
        f"Verdicts are corrected for the {len(compared)} comparisons of the table"
        " (Holm); each interval is at 95 % by itself."
    ]


def _on_rope(sweep: Sweep) -> list[str]:
    if sweep.rope is None:
        return []
    unit = sweep.headline.difference_unit
    most = numbers.with_unit(f"{PLUS_MINUS}{sweep.rope:g}", unit)
    return [f"Equivalent is what surely differs by less than {most}."]


def _on_open(compared: Sequence[Row]) -> list[str]:
    """Notes on what would decide the rows that are not distinguishable."""
    seeds, examples, none = [], [], []
    for row in compared:
        needed = row.decision.needed if row.decision else None
        if needed is None:
            continue
        if needed.seeds is not None:
            seeds.append(f"{row.label} ({needed.seeds})")
        elif needed.examples is not None:
            examples.append(f"{row.label} ({numbers.integer(needed.examples)})")
        else:
            none.append(row.label)
    said = []
    if seeds:
        said.append(
            "So many more seeds would decide what is open, if means and spreads stay:"
            f" {numbers.listed(seeds)}."
        )
    if examples:
        said.append(
            "No number of seeds would decide others, but at least so many test"
            f" examples in all: {numbers.listed(examples)}."
        )
    if none:
        said.append(
            f"Not even {decision.MOST} seeds would decide: {numbers.listed(none)}."
        )
    return said
