"""Phrases that the package Babel writes in many languages, from random numbers.

Each maker takes random numbers in [0, 1) and returns with what the phrase is held
out, "" for not at all, and a function that writes it in a language of Babel.
"""

import datetime
from collections.abc import Callable, Sequence
from typing import Any

Phrase = tuple[str, Callable[[Any], str]]
Maker = Callable[[Sequence[float]], Phrase]

# How often each kind comes, in twentieths.
KINDS = {"date": 5, "interval": 4, "list": 5, "unit": 2, "money": 2, "relative": 2}
YEARS = range(1900, 2100)
DATES = ("full", "full", "long", "yMMMM", "yMMMEd", "yQQQQ", "datetime")
INTERVALS = ("yMMMd", "yMMMd", "yMMMEd", "yMMMM")
UNITS = tuple(
    f"{family}-{unit}"
    for family, units in {
        "area": "square-kilometer hectare square-meter square-mile acre square-foot",
        "digital": "terabyte gigabyte megabyte kilobyte byte",
        "duration": "century decade year quarter month week day hour minute second"
        " night",
        "energy": "kilocalorie kilojoule kilowatt-hour",
        "length": "kilometer meter centimeter millimeter mile yard foot inch"
        " light-year nautical-mile",
        "mass": "kilogram gram milligram pound ounce stone carat",
        "power": "megawatt kilowatt watt horsepower",
        "speed": "kilometer-per-hour meter-per-second mile-per-hour knot",
        "temperature": "celsius fahrenheit",
        "volume": "cubic-meter hectoliter liter milliliter gallon pint cup tablespoon"
        " teaspoon barrel drop",
    }.items()
    for unit in units.split()
)
_MONEY = """
    AED ARS AUD BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY
    KES KRW MAD MXN MYR NGN NOK NZD PEN PHP PLN RON RUB SAR SEK SGD THB TRY UAH USD VND
    ZAR
"""
MONEY = tuple(_MONEY.split())
SECONDS = {  # of the times from now
    "year": 31_536_000,
    "month": 2_592_000,
    "week": 604_800,
    "day": 86_400,
    "hour": 3_600,
    "minute": 60,
    "second": 1,
}


def makers(locales: Sequence[Any]) -> dict[str, Maker]:
    """The maker of each of `KINDS`.

    Args:
        locales: of Babel, in which phrases will be written.
    """
    tables = [_names(locales, table) for table in ("territories", "languages")]
    return {
        "date": _date,
        "interval": _interval,
        "list": lambda draws: _list(draws, tables),
        "unit": _unit,
        "money": _money,
        "relative": _relative,
    }


def pick(draw: float, choices: Sequence[Any]) -> Any:
    """One of some choices."""
    return choices[int(draw * len(choices))]


def _date(draws: Sequence[float]) -> Phrase:
    from babel import dates

    day, style = _day(draws[0], draws[1]), pick(draws[2], DATES)
    minute = datetime.timedelta(minutes=int(draws[3] * 1440))
    moment = datetime.datetime.combine(day, datetime.time()) + minute

    def write(locale: Any) -> str:
        if style in ("full", "long"):
            return dates.format_date(day, style, locale=locale)
        if style == "datetime":
            time = dates.format_time(moment, "short", locale=locale)
            return f"{dates.format_date(day, 'full', locale=locale)}, {time}"
        return dates.format_skeleton(style, day, locale=locale)

    return f"year {day.year}", write


def _interval(draws: Sequence[float]) -> Phrase:
    from babel import dates

    first, style = _day(draws[0], draws[1]), pick(draws[2], INTERVALS)
    # within a year, as a year is held out as a whole; months and days are near more
    # often than not
    left = (datetime.date(first.year, 12, 31) - first).days
    last = first + datetime.timedelta(days=int(draws[3] ** 3 * (left + 1)))
    write = lambda locale: dates.format_interval(first, last, style, locale=locale)
    return f"year {first.year}", write


def _list(draws: Sequence[float], tables: Sequence[Sequence[Any]]) -> Phrase:
    from babel import lists

    names = list(pick(draws[0], tables))
    style = pick(draws[1], ("standard", "standard", "or"))
    chosen = []
    for draw in draws[3 : 3 + pick(draws[2], (1, 2, 2, 3, 3, 4))]:
        chosen.append(pick(draw, names))
        names.remove(chosen[-1])
    held = " ".join(sorted(name["en"] for name in chosen))

    def write(locale: Any) -> str:
        words = [name[locale.language] for name in chosen]
        return lists.format_list(words, style, locale=locale)

    return held if len(chosen) > 1 else "", write


def _unit(draws: Sequence[float]) -> Phrase:
    from babel import units

    unit, amount = pick(draws[0], UNITS), _amount(draws[1], draws[2])
    write = lambda locale: units.format_unit(amount, unit, "long", locale=locale)
    return _rest(amount, unit), write


def _money(draws: Sequence[float]) -> Phrase:
    from babel import numbers

    currency, amount = pick(draws[0], MONEY), _amount(draws[1], draws[2])
    write = lambda locale: numbers.format_currency(
        amount, currency, format_type="name", locale=locale, currency_digits=False
    )
    return _rest(amount, currency), write


def _relative(draws: Sequence[float]) -> Phrase:
    from babel import dates

    unit, sign = pick(draws[0], tuple(SECONDS)), pick(draws[1], (-1, 1))
    amount = int(1000 ** draws[2])
    write = lambda locale: dates.format_timedelta(
        sign * amount * SECONDS[unit],
        granularity=unit,
        threshold=float("inf"),
        add_direction=True,
        locale=locale,
    )
    return _rest(amount, unit), write


def _day(year: float, day: float) -> datetime.date:
    """Any day of `YEARS`."""
    first = datetime.date(pick(year, YEARS), 1, 1)
    days = (datetime.date(first.year, 12, 31) - first).days + 1
    return first + datetime.timedelta(days=int(day * days))


def _amount(size: float, digits: float) -> float:
    """From 1 to 10,000, small ones more often; every fourth has one decimal."""
    amount = 10_000**size
    return round(amount, 1) if digits < 0.25 and amount > 1.5 else int(amount)


def _rest(amount: float, unit: str) -> str:
    """What an amount is held out with: "", so in training, if it is one of a few."""
    return f"{amount:g} {unit}" if amount > 2 else ""


def _names(locales: Sequence[Any], table: str) -> list[dict[str, str]]:
    """Names of countries or languages in each language, by its code."""
    tables = {locale.language: getattr(locale, table) for locale in locales}
    codes = [
        code
        for code in sorted(tables[locales[0].language])
        if len(code) == 2  # neither regions of the world nor dialects
        and code not in ("XA", "XB", "ZZ", "EU", "EZ", "UN")
        and all(code in names for names in tables.values())
    ]
    return [{key: names[code] for key, names in tables.items()} for code in codes]
