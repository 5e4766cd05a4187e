"""Times in requests: ISO 8601, or milliseconds since 1970 UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from flexmeter.errors import InputError
from flexmeter.storage import Span

LATEST_MS = 253_402_300_799_000
"""The last second of the year 9999."""


def milliseconds(field: str, text: str) -> int:
    """Return the time [ms UTC]; a time of day without a zone is refused, not guessed."""
    number = text.removeprefix("-")
    digits = number.isascii() and number.isdecimal() and len(number) < 20
    value = int(text) if digits else _from_iso(field, text)
    if not 0 <= value <= LATEST_MS:
        raise InputError(f"{field}: {text[:40]!r} lies outside the years 1970 to 9999")
    return value


def span(start: str, end: str) -> Span:
    """Return the half-open span of `from` and `to`."""
    return Span(milliseconds("from", start), milliseconds("to", end))


def _from_iso(field: str, text: str) -> int:
    expected = "expected ISO 8601 with a zone such as 2026-06-01T00:00:00Z, or milliseconds since 1970"
    try:
        # a plus sign in a query arrives as a blank
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise InputError(f"{field}: {text[:40]!r}, {expected}") from None
    if moment.tzinfo is None:
        raise InputError(f"{field}: {text[:40]!r} has no zone, {expected}")
    return int(moment.astimezone(UTC).timestamp() * 1000)
