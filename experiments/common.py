"""What several experiments need: arguments in `--config=file.py:a=1,b`."""

from typing import Any


def parse(arg: str, **defaults: Any) -> dict[str, Any]:
    """Reads "a=1,b" over `defaults`; a bare name means True.

    Values take the type of their default.

    Raises:
        ValueError: an unknown name, or a value of another type.
    """
    values = dict(defaults)
    for item in filter(None, arg.split(",")):
        name, _, text = item.partition("=")
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ValueError(f"unknown argument {name!r} (valid: {known})")
        kind = type(defaults[name])
        try:
            if kind is bool:
                values[name] = {"": True, "true": True, "false": False}[text.lower()]
            else:
                values[name] = kind(text)
        except (KeyError, ValueError):
            message = f"argument {name} must be {kind.__name__}, got {text!r}"
            raise ValueError(message) from None
    return values
