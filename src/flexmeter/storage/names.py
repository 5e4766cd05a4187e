"""Names and numbers of the series of one tenant, in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexmeter.storage.columns import Name
from flexmeter.storage.query import Selection

PARTS = ("source", "meter", "quantity", "phase")


class Names:
    """Grows only; numbers are places in the list of names."""

    def __init__(self, names: Iterable[Name]) -> None:
        self._names: list[Name] = []
        self._numbers: dict[Name, int] = {}
        self._of_source: defaultdict[str, list[int]] = defaultdict(list)
        self._of_meter: defaultdict[str, list[int]] = defaultdict(list)
        self.add(names)

    def __len__(self) -> int:
        """Return how many series there are."""
        return len(self._names)

    def missing(self, names: Iterable[Name]) -> list[Name]:
        """Return those not known yet, each once, in order."""
        return [name for name in dict.fromkeys(names) if name not in self._numbers]

    def add(self, names: Iterable[Name]) -> None:
        """Number new names on from the last."""
        for name in names:
            number = len(self._names)
            self._names.append(name)
            self._numbers[name] = number
            self._of_source[name[0]].append(number)
            self._of_meter[name[1]].append(number)

    def numbers(self, names: Sequence[Name]) -> NDArray[np.int32]:
        """Return the numbers of known names."""
        return np.fromiter((self._numbers[name] for name in names), np.int32, len(names))

    def chosen(self, selection: Selection) -> NDArray[np.int32]:
        """Return the numbers of the series a selection names, ascending."""
        wanted = (selection.sources, selection.meters, selection.quantities, selection.phases)
        tests = [(part, frozenset(some)) for part, some in enumerate(wanted) if some]
        names = self._names
        found = [
            number for number in self._candidates(selection) if all(names[number][part] in some for part, some in tests)
        ]
        return np.unique(np.array(found, np.int32))

    def labels(self, among: NDArray[np.int32]) -> Labels:
        """Return what turns numbers of these series (ascending) into columns of names."""
        parts = list(zip(*(self._names[number] for number in among), strict=True)) or [()] * 4
        return Labels(among, [pa.array(part, pa.string()) for part in parts])

    def _candidates(self, selection: Selection) -> Iterable[int]:
        if selection.sources:
            index, keys = self._of_source, selection.sources
        elif selection.meters:
            index, keys = self._of_meter, selection.meters
        else:
            return range(len(self._names))
        return [number for key in keys for number in index.get(key, ())]


class Labels:
    """Turns series numbers into dictionary-encoded columns that share their dictionaries."""

    def __init__(self, among: NDArray[np.int32], parts: Sequence[pa.Array]) -> None:
        self._among = among
        self._parts = parts

    def columns(self, series: NDArray[np.int32]) -> dict[str, pa.Array]:
        """Return the parts of the names of these series."""
        place = pa.array(np.searchsorted(self._among, series).astype(np.int32))
        return {
            part: pa.DictionaryArray.from_arrays(place, values) for part, values in zip(PARTS, self._parts, strict=True)
        }
