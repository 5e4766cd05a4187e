"""Files in: the project's own JSON for feeder networks."""

from __future__ import annotations

import json
from pathlib import Path

from flexmeter.reconfiguration.network import FeederNetwork, build_network

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


def read_json(path: Path) -> FeederNetwork:
    """Read a network from JSON (see docs/methods/reconfiguration.md for the fields)."""
    d = json.loads(path.read_text())
    br = d["branches"]
    return build_network(
        bus_ids=[str(b["id"]) for b in d["buses"]],
        branch_ids=[str(b["id"]) for b in br],
        from_bus=[str(b["f"]) for b in br],
        to_bus=[str(b["t"]) for b in br],
        r_ohm=[b["r"] for b in br],
        x_ohm=[b["x"] for b in br],
        nominal_voltage_v=d["base_kv"] * 1e3,
        slack_buses=[str(s) for s in (d["slack"] if isinstance(d["slack"], list) else [d["slack"]])],
        slack_voltage_v=d["vslack"] * d["base_kv"] * 1e3,
        p_w=[b["p_kw"] * 1e3 for b in d["buses"]],
        q_var=[b["q_kvar"] * 1e3 for b in d["buses"]],
        closed=[bool(b["status"]) for b in br],
        switchable=[bool(b.get("switchable", 1)) for b in br],
        rated_current_a=[b.get("amp") or float("nan") for b in br],
        name=d["name"],
    )
