"""Devices that may publish for a tenant, and the area each belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flexmeter.registry.database import Database
from flexmeter.registry.names import checked
from flexmeter.registry.tenants import Tenants


@dataclass(frozen=True, slots=True)
class Device:
    """A device (concentrator, gateway, service) and its area; an empty area is none."""

    name: str
    area: str = ""


class Devices:
    """The devices of all tenants."""

    def __init__(self, database: Database, tenants: Tenants, clock: Callable[[], int]) -> None:
        self._database = database
        self._tenants = tenants
        self._clock = clock

    def add(self, tenant: str, devices: Iterable[Device]) -> None:
        """Add devices in one transaction; known ones move to the area given."""
        self._tenants.require(tenant)
        now_ms = self._clock()
        rows = [(tenant, checked("device", d.name), checked("area", d.area) if d.area else "", now_ms) for d in devices]
        with self._database.change() as connection:
            connection.executemany(
                "insert into devices values (?, ?, ?, ?) on conflict (tenant, name) do update set area = excluded.area",
                rows,
            )

    def all(self, tenant: str) -> tuple[Device, ...]:
        """Return the devices of a tenant."""
        found = self._database.ask("select name, area from devices where tenant = ? order by name", [tenant])
        return tuple(Device(str(name), str(area)) for name, area in found)

    def knows(self, tenant: str, name: str) -> bool:
        """Tell whether a tenant has this device."""
        return bool(self._database.ask("select 1 from devices where tenant = ? and name = ?", [tenant, name]))

    def of_area(self, tenant: str, area: str) -> tuple[str, ...]:
        """Return the names of the devices of an area."""
        found = self._database.ask(
            "select name from devices where tenant = ? and area = ? order by name", [tenant, area]
        )
        return tuple(str(name) for (name,) in found)
