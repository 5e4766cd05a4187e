"""All errors of the project, one tree.

    FlexmeterError
    ├── InputError            bad file, option, value: what was found and what was expected
    │   ├── GridError         findings about a grid model, collected, raised once
    │   ├── MeasurementError  findings about measurements, collected, raised once
    │   └── ConfigError       findings about a configuration file
    ├── NumericalError
    │   ├── DidNotConverge    iterations, mismatch, worst bus
    │   ├── NotObservable     the buses and phases without information
    │   └── NotRadial         a tree was needed: loops or islands, named
    ├── MessageError          a message that breaks the data format
    ├── BrokerError           broker process or connection
    ├── StorageError          the data store refused or failed
    ├── AccessError           not authenticated or not permitted
    └── ServiceError          a service process failed

A user sees `str(error)`: one or two lines that name file, field and value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan


class FlexmeterError(Exception):
    """Root of all errors this project raises on purpose."""


class InputError(FlexmeterError):
    """Something the user gave is wrong; the text says what was expected."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where (component, ids, field) and what was expected."""

    component: str
    ids: tuple[str, ...]
    field: str
    text: str

    def __str__(self) -> str:
        """Return `component id field: text`, with at most four ids."""
        shown = ", ".join(self.ids[:4]) + (f" (+{len(self.ids) - 4} more)" if len(self.ids) > 4 else "")
        where = f"{self.component} {shown}".strip()
        return f"{where} {self.field}: {self.text}".replace("  ", " ")


class FindingsError(InputError):
    """An input error that carries every finding of a validation."""

    def __init__(self, findings: Sequence[Finding], source: str = "") -> None:
        self.findings = tuple(findings)
        self.source = source
        lines = [str(finding) for finding in self.findings[:8]]
        if len(self.findings) > 8:
            lines.append(f"(+{len(self.findings) - 8} more findings)")
        super().__init__((f"{source}: " if source else "") + "; ".join(lines))


class GridError(FindingsError):
    """The grid model is not valid."""


class MeasurementError(FindingsError):
    """The measurements do not fit the grid or are not valid."""


class ConfigError(FindingsError):
    """The configuration file is not valid."""


class NumericalError(FlexmeterError):
    """A computation has no answer that could be trusted."""


class DidNotConverge(NumericalError):
    """An iteration stopped at its cap (`iterations` 0: not told), with nan for a mismatch that is not known."""

    def __init__(self, what: str, iterations: int, mismatch: float, worst: str) -> None:
        self.iterations = iterations
        self.mismatch = mismatch
        self.worst = worst
        count = f" in {iterations} iterations" if iterations > 0 else ""
        size = f"mismatch {mismatch:.3g} at " if not isnan(mismatch) else ""
        super().__init__(f"{what} did not converge{count}: {size}{worst}")


class NotObservable(NumericalError):
    """The measurements do not determine the state."""

    def __init__(self, where: Sequence[str]) -> None:
        self.where = tuple(where)
        shown = ", ".join(self.where[:6]) + (" ..." if len(self.where) > 6 else "")
        super().__init__(f"not observable: {shown}")


class NotRadial(NumericalError):
    """A radial grid was needed."""


class MessageError(FlexmeterError):
    """A message breaks the Flexmeter Data Format."""


class BrokerError(FlexmeterError):
    """The broker process or a connection to it failed."""


class StorageError(FlexmeterError):
    """The data store refused a request or failed."""


class AccessError(FlexmeterError):
    """The caller is unknown or not permitted."""


class ServiceError(FlexmeterError):
    """A service process failed."""
