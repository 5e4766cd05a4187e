"""The processes of a demo beside broker and platform, each started from its settings file."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path

from flexmeter.errors import InputError
from flexmeter.services.settings import ServiceSettings, read_toml

KINDS = ("topology", "field", "lv", "mv", "reconfiguration")


def start(kind: str, path: Path) -> Coroutine[None, None, None]:
    """Return the coroutine of a process; what it needs is imported only here, so that each process stays small."""
    if kind == "topology":
        from flexmeter.app.topology import TopologySettings, run_topology  # noqa: PLC0415

        return run_topology(read_toml(path, TopologySettings))
    if kind == "field":
        from flexmeter.scenario.field_process import FieldSettings, run_field  # noqa: PLC0415

        return run_field(read_toml(path, FieldSettings))
    if kind in KINDS:
        from flexmeter.app.services import run_service  # noqa: PLC0415

        return run_service(read_toml(path, ServiceSettings))
    raise InputError(f"process {kind!r}: expected one of {', '.join(KINDS)}")
