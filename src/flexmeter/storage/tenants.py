"""Stores of all tenants, each with a database of its own, opened when first needed."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

from flexmeter.errors import InputError
from flexmeter.storage.base import Store

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_tenant(name: str) -> None:
    """Raise InputError for a name that could not be part of a file or database name."""
    if not _NAME.fullmatch(name):
        raise InputError(f"tenant {name!r}: expected 1 to 64 letters, digits, _ or -")


class TenantStores:
    """Opens a store per tenant with the function given, and closes them all."""

    def __init__(self, open_store: Callable[[str], Store]) -> None:
        self._open_store = open_store
        self._stores: dict[str, Store] = {}
        self._lock = threading.Lock()

    def store(self, tenant: str) -> Store:
        """Return the store of a tenant."""
        with self._lock:
            if tenant not in self._stores:
                self._stores[tenant] = self._open_store(tenant)
            return self._stores[tenant]

    def opened(self) -> tuple[Store, ...]:
        """Return the stores that are open."""
        with self._lock:
            return tuple(self._stores.values())

    def close(self) -> None:
        """Close every store."""
        with self._lock:
            for store in self._stores.values():
                store.close()
            self._stores.clear()
