"""Recommendations in the registry: statuses, verdicts, the audit trail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flexmeter.errors import InputError, MessageError
from flexmeter.registry import Registry, open_registry
from flexmeter.registry.recommendations import KeptRecommendation, VerdictConflict


class Clock:
    """Counts up by one at every look."""

    def __init__(self) -> None:
        self.now = 1000

    def __call__(self) -> int:
        self.now += 1
        return self.now


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = open_registry(tmp_path / "registry.sqlite", clock=Clock())
    registry.tenants.add("acme")
    registry.tenants.add("rival")
    yield registry
    registry.close()


def put(registry: Registry, number: int = 1, status: str = "proposed", grid: str = "ring") -> KeptRecommendation:
    document = f'{{"number": {number}, "status": "{status}"}}'.encode()
    return registry.recommendations.put(
        "acme", grid, number, service="reco", status=status, document=document, author="reco token"
    )


def words(registry: Registry, number: int = 1) -> list[tuple[str, str, str]]:
    trail = registry.recommendations.history("acme", "ring", number)
    assert [entry.time_ms for entry in trail] == sorted(entry.time_ms for entry in trail)
    return [(entry.word, entry.author, entry.reason) for entry in trail]


def test_the_trail_from_proposal_to_execution(registry: Registry) -> None:
    kept = registry.recommendations
    first = put(registry)
    assert put(registry) == first
    told = kept.decide("acme", "ring", 1, "approve", author="anna", reason="saves")
    assert (told.status, told.verdict) == ("proposed", "approve")
    assert kept.decide("acme", "ring", 1, "approve", author="bert") == told
    assert [(tenant, one.number) for tenant, one in kept.not_sent()] == [("acme", 1)]
    kept.sent("acme", "ring", 1)
    assert kept.not_sent() == ()
    put(registry, status="executed")
    assert kept.decide("acme", "ring", 1, "approve", author="bert").status == "executed"
    assert words(registry) == [
        ("proposed", "reco token", ""),
        ("approve", "anna", "saves"),
        ("executed", "reco token", ""),
    ]


def test_a_verdict_stands(registry: Registry) -> None:
    kept = registry.recommendations
    put(registry)
    kept.decide("acme", "ring", 1, "reject", author="anna")
    with pytest.raises(VerdictConflict, match="told to reject"):
        kept.decide("acme", "ring", 1, "approve", author="bert")
    put(registry, 2, "advised")
    with pytest.raises(VerdictConflict, match="is advised"):
        kept.decide("acme", "ring", 2, "approve", author="bert")
    with pytest.raises(InputError, match="not known"):
        kept.decide("acme", "ring", 3, "approve", author="bert")
    with pytest.raises(InputError, match="not known"):
        kept.decide("rival", "ring", 1, "approve", author="mallory")


def test_a_newer_recommendation_supersedes_open_ones_of_its_grid(registry: Registry) -> None:
    for number, grid in ((1, "ring"), (2, "ring"), (3, "other")):
        put(registry, number, grid=grid)
    put(registry, 4)
    found = registry.recommendations.list("acme")
    assert [(one.number, one.status) for one in found] == [
        (4, "proposed"),
        (3, "proposed"),
        (2, "superseded"),
        (1, "superseded"),
    ]
    assert words(registry)[-1] == ("superseded", "reco token", "by recommendation 2")


def test_lists_by_grid_status_and_page(registry: Registry) -> None:
    for number in range(1, 6):
        put(registry, number, "rejected" if number % 2 else "executed")
    kept = registry.recommendations
    assert [one.number for one in kept.list("acme", status="rejected")] == [5, 3, 1]
    assert kept.list("acme", grid="other") == ()
    assert kept.list("rival") == ()
    page = kept.list("acme", limit=2)
    rest = kept.list("acme", before_id=page[-1].id)
    assert [one.number for one in (*page, *rest)] == [5, 4, 3, 2, 1]


def test_wrong_names_and_statuses_are_refused(registry: Registry) -> None:
    with pytest.raises(InputError, match="expected one of"):
        put(registry, status="perhaps")
    with pytest.raises((InputError, MessageError)):
        put(registry, grid="a/b")
