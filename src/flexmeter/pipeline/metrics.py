"""The pipeline's counters in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from flexmeter.pipeline.counters import Counters
from flexmeter.pipeline.sequences import Sequences

_MESSAGE_STATES = ("stored", "duplicate", "rejected")
_VALUE_STATES = {"stored": "values_stored", "duplicate": "values_duplicate", "conflict": "values_conflict"}


class Accountable(Protocol):
    """What a pipeline says about itself."""

    tenant: str

    @property
    def counters(self) -> Counters:
        """The account of the messages."""

    @property
    def sequences(self) -> Sequences:
        """Numbers that are missing."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for their commit."""

    @property
    def store_error(self) -> str:
        """Why the store does not commit now, empty while it does."""


def metrics_text(pipelines: Iterable[Accountable]) -> str:
    """Return the metrics of all tenants; received = stored + duplicate + rejected + queued holds in one answer."""
    families: dict[str, tuple[str, str, list[str]]] = {}

    def put(name: str, kind: str, text: str, value: float, **labels: str) -> None:
        _, _, lines = families.setdefault(name, (kind, text, []))
        inside = ",".join(f'{key}="{label}"' for key, label in labels.items())
        lines.append(f"{name}{{{inside}}} {value}")

    for pipeline in pipelines:
        counters, tenant = msgspec.structs.asdict(pipeline.counters), pipeline.tenant
        put("flexmeter_messages_received_total", "counter", "messages taken", counters["received"], tenant=tenant)
        for state in _MESSAGE_STATES:
            text = "messages by what became of them"
            put("flexmeter_messages_total", "counter", text, counters[state], tenant=tenant, state=state)
        put("flexmeter_messages_queued", "gauge", "messages waiting for commit", counters["queued"], tenant=tenant)
        for state, field in _VALUE_STATES.items():
            text = "values by what became of them"
            put("flexmeter_values_total", "counter", text, counters[field], tenant=tenant, state=state)
        put("flexmeter_commits_total", "counter", "transactions", counters["commits"], tenant=tenant)
        text = "redeliveries of messages that were waiting already"
        put("flexmeter_messages_held_again_total", "counter", text, counters["held_again"], tenant=tenant)
        text = "batches that devices numbered and nobody has seen"
        put("flexmeter_sequence_missing", "gauge", text, pipeline.sequences.missing, tenant=tenant)
        put("flexmeter_waiting_bytes", "gauge", "bytes waiting for commit", pipeline.waiting_bytes, tenant=tenant)
        text = "1 while the store refuses to commit"
        put("flexmeter_store_failing", "gauge", text, int(bool(pipeline.store_error)), tenant=tenant)
    blocks = [
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n" + "\n".join(lines)
        for name, (kind, text, lines) in families.items()
    ]
    return "\n".join(blocks) + "\n"
