"""What the API needs of the platform around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flexmeter.messages.rows import WriteResult
from flexmeter.registry import Registry, Topology
from flexmeter.storage import TenantStores


class Ingest(Protocol):
    """Takes a batch of readings as an Event Source does, with the same checks."""

    async def __call__(self, tenant: str, payload: bytes) -> WriteResult:
        """Return when the batch is committed.

        MessageError: the batch breaks the format or a check, with the reason. AccessError: its
        device is not this tenant's. StorageError: not stored, try again.
        """


class TopologyAlerting(Protocol):
    """Publishes that a switch vector changed."""

    async def __call__(self, tenant: str, topology: Topology) -> None:
        """Return when the broker has taken the alert; raise BrokerError if it has not."""


class Commanding(Protocol):
    """Sends a command to a device or service."""

    async def __call__(self, tenant: str, device: str, name: str, id: str) -> None:
        """Return when the broker has taken the command; raise BrokerError if it has not."""


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Bounds of one question and of all together.

    Attributes
    ----------
    json_rows : most rows of a JSON answer; larger ones go as CSV, Parquet or Arrow.
    seconds : longest time until the first rows, and between pieces.
    at_once : questions of bulk data under way at once; more are told to come again.
    body_bytes : most bytes of a request.
    """

    json_rows: int = 200_000
    seconds: float = 60.0
    at_once: int = 8
    body_bytes: int = 4_000_000


@dataclass(frozen=True, slots=True)
class Platform:
    """The parts that `create_app` serves.

    Attributes
    ----------
    stores, registry : readings and estimates; tenants, tokens, devices and grids.
    ingest : takes posted batches.
    alert : publishes changed topologies; None when the topology service is another process, then
        this application has no topology routes.
    metrics : text of `/metrics` in the Prometheus format.
    not_ready : reasons why the platform cannot take requests, none when it is ready.
    limits : see there.
    command : sends verdicts on recommendations to the service; None as with `alert`.
    """

    stores: TenantStores
    registry: Registry
    ingest: Ingest
    alert: TopologyAlerting | None
    metrics: Callable[[], str]
    not_ready: Callable[[], Sequence[str]]
    limits: QueryLimits = field(default_factory=QueryLimits)
    command: Commanding | None = None
