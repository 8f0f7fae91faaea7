"""Settings that every row of a sweep tries, as a file or a command gives them."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from attn import settings
from attn.train.sweep.override import literal, overlap, plain

Trial = dict[str, Any]  # values of fields, by dotted path


def asked(texts: Sequence[str]) -> tuple[Trial, ...] | None:
    """All combinations of "FIELD=VALUE,VALUE,...", one text a field.

    Returns:
        The trials; none for the text "none", and None where there is no text.

    Raises:
        Invalid: a text of another form, or as `listed` says.
    """
    if not texts:
        return None
    if list(texts) == ["none"]:
        return ()
    fields: dict[str, list[Any]] = {}
    for text in texts:
        field, given, values = text.partition("=")
        if not field or not given or field in fields:
            raise settings.Invalid(
                "--tune takes FIELD=VALUE,VALUE,... once for each field, such as"
                f" schedule.peak=0.003,0.01,0.03, or none, got {text!r}"
            )
        fields[field.removeprefix("config.")] = _values(values)
    return listed(fields)


def _values(text: str) -> list[Any]:
    """The values in "0.003,0.01" or "cosine,linear"; tuples have brackets."""
    try:
        return list(literal(f"[{text}]"))
    except ValueError:
        return [word.strip() for word in text.split(",")]


def listed(given: Any) -> tuple[Trial, ...]:
    """The trials of {field: values}, all combinations, or of a list of trials.

    Raises:
        Invalid: it is neither, it tries something twice, or trials do not set the
            same fields.
    """
    if given is None:
        return ()
    form = "tune takes {field: values} or a list of {field: value}"
    if isinstance(given, Mapping):
        lists = {str(field): plain(values) for field, values in given.items()}
        if not lists or not all(isinstance(v, list) and v for v in lists.values()):
            raise settings.Invalid(f"{form}, got {given!r:.80}")
        made = [
            dict(zip(lists, chosen, strict=True))
            for chosen in itertools.product(*lists.values())
        ]
    elif isinstance(given, list | tuple) and all(isinstance(t, Mapping) for t in given):
        made = [{str(field): plain(v) for field, v in t.items()} for t in given]
    else:
        raise settings.Invalid(f"{form}, got {given!r:.80}")
    _check(made)
    return tuple(made)


def _check(trials: Sequence[Trial]) -> None:
    fields = set(trials[0]) if trials else set()
    for trial in trials:
        if set(trial) != fields or not fields:
            raise settings.Invalid(
                f"trials must set the same fields, got {sorted(fields)} and"
                f" {sorted(trial)}"
            )
    for one, other in itertools.combinations(sorted(fields), 2):
        if overlap(one, other):
            raise settings.Invalid(f"tune sets {one!r} and {other!r} inside it")
    if "seed" in fields:
        raise settings.Invalid("tune cannot set the seed: trials have their own")
    texts = [json.dumps(trial, sort_keys=True) for trial in trials]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice:
        raise settings.Invalid(f"tune tries {twice} twice")
