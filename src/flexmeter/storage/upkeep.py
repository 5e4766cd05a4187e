"""Roll-ups, retention and sorting of all open stores, every so often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from flexmeter.errors import StorageError
from flexmeter.storage.tenants import TenantStores


@asynccontextmanager
async def upkeep(
    stores: TenantStores, *, every_s: float, failed: Callable[[str, StorageError], None]
) -> AsyncIterator[None]:
    """Maintain the open stores in a thread until the block ends; a round under way is finished.

    Nothing is lost when upkeep fails (a full disk, say): questions read the rows instead of the
    roll-ups. So it tries again next time; `failed` is told the tenant and why.
    """
    ending = asyncio.Event()

    def one_round() -> None:
        for store in stores.opened():
            try:
                store.maintain()
            except StorageError as error:
                failed(store.tenant, error)

    async def rounds() -> None:
        while not ending.is_set():
            try:
                async with asyncio.timeout(every_s):
                    await ending.wait()
            except TimeoutError:
                await asyncio.to_thread(one_round)

    running = asyncio.create_task(rounds())
    try:
        yield
    finally:
        ending.set()
        await running
