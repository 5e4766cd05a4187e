"""The routes of recommendations, over a real registry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest
from asgi_client import AsgiClient
from fastapi import FastAPI

from flexmeter.api import problems, recommendations_router
from flexmeter.api.recommendations import repeat_verdicts
from flexmeter.errors import BrokerError
from flexmeter.messages.events import Decision, Recommendation, StateFigures
from flexmeter.registry import Registry, Scope, open_registry


@dataclass
class Commands:
    """Records commands, or fails as told."""

    sent: list[tuple[str, str, str, str]] = field(default_factory=list)
    failure: Exception | None = None

    async def __call__(self, tenant: str, device: str, name: str, id: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append((tenant, device, name, id))


@dataclass
class Desk:
    """The routes of one tenant with a token that may read and switch."""

    registry: Registry
    commands: Commands
    client: AsgiClient
    headers: dict[str, str]

    def call(self, method: str, path: str, **how) -> httpx.Response:
        return self.client.request(method, f"/recommendations{path}", headers=self.headers, **how)

    def put(self, number: int = 1, status: str = "proposed", **how) -> httpx.Response:
        document = msgspec.json.encode(recommendation(number, status))
        return self.call("PUT", f"/ring/{number}?service=reco", content=document, **how)


def recommendation(number: int = 1, status: str = "proposed") -> Recommendation:
    now, then = (StateFigures(losses, 0.95, 1.0, 0.4, 0.0) for losses in (100.0, 90.0))
    return Recommendation(
        grid="ring",
        topology=3,
        time_ms=60_000,
        number=number,
        status=status,
        current=("l1",),
        proposed=("l2",),
        losses_now_w=100.0,
        losses_then_w=90.0,
        gain_percent=10.0,
        sigma_percent=1.0,
        probability=1.0,
        operations=(("close", "l1"), ("open", "l2")),
        balanced=(now, then),
        three_phase=(None, then),
    )


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    registry = open_registry(tmp_path / "registry.sqlite")
    registry.tenants.add("acme")
    commands = Commands()
    app = FastAPI()
    problems.install(app)
    app.include_router(recommendations_router(registry, commands))
    token = registry.tokens.create("acme", "anna", {Scope.READ, Scope.TOPOLOGY})
    with AsgiClient(app) as client:
        yield Desk(registry, commands, client, {"Authorization": f"Bearer {token}"})
    registry.close()


def test_a_recommendation_is_kept_with_its_evidence(desk: Desk) -> None:
    assert desk.put().status_code == 200
    assert desk.put().json() == desk.put().json()
    found = desk.call("GET", "/ring/1").json()
    assert (found["status"], found["verdict"], found["service"]) == ("proposed", None, "reco")
    assert msgspec.convert(found["recommendation"], Recommendation) == recommendation()
    assert [(word["word"], word["author"]) for word in found["history"]] == [("proposed", "anna")]
    page = desk.call("GET", "?grid=ring&status=proposed&limit=1").json()
    assert [one["number"] for one in page["recommendations"]] == [1]
    assert page["next_before"] == page["recommendations"][0]["id"]
    assert desk.call("GET", f"?before={page['next_before']}").json() == {"recommendations": [], "next_before": None}


@pytest.mark.parametrize(("verdict", "other"), [("approve", "reject"), ("reject", "approve")])
def test_a_verdict_is_told_once_and_stands(desk: Desk, verdict: str, other: str) -> None:
    desk.put()
    first = desk.call("POST", f"/ring/1/{verdict}", json={"reason": "as discussed"})
    assert first.status_code == 200, first.text
    assert first.json()["verdict"] == verdict
    assert first.json()["history"][-1]["reason"] == "as discussed"
    again = desk.call("POST", f"/ring/1/{verdict}")
    assert again.json()["history"] == first.json()["history"]
    assert set(desk.commands.sent) == {("acme", "reco", verdict, "1")}
    assert desk.call("POST", f"/ring/1/{other}").status_code == 409
    desk.put(status="executed" if verdict == "approve" else "rejected")
    sent = len(desk.commands.sent)
    assert desk.call("POST", f"/ring/1/{verdict}").status_code == 200
    assert len(desk.commands.sent) == sent


def test_a_verdict_that_the_service_was_not_told_is_repeated(desk: Desk) -> None:
    desk.put()
    desk.commands.failure = BrokerError("broker is away")
    assert desk.call("POST", "/ring/1/approve").status_code == 503
    assert desk.call("GET", "/ring/1").json()["verdict"] == "approve"
    desk.commands.failure = None
    assert desk.client._runner.run(repeat_verdicts(desk.registry, desk.commands)) == 1
    assert desk.commands.sent == [("acme", "reco", "approve", "1")]
    assert desk.registry.recommendations.not_sent() == ()


def test_wrong_requests_are_problems(desk: Desk) -> None:
    for method, path, status in (
        ("GET", "/ring/7", 404),
        ("POST", "/ring/7/approve", 404),
        ("GET", "/ring/0", 422),
        ("GET", "/ring/x", 422),
        ("GET", "?status=perhaps", 422),
        ("GET", "?limit=0", 422),
        ("PUT", "/ring/1", 422),
    ):
        answer = desk.call(method, path)
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    other = msgspec.json.encode(
        Decision(grid="ring", topology=1, time_ms=0, proposed=(), gain_percent=0.0, held=0, changed=False)
    )
    for document in (b"", b"{}", other, msgspec.json.encode(recommendation(2))):
        assert desk.call("PUT", "/ring/1?service=reco", content=document).status_code == 422
    desk.put()
    assert desk.call("POST", "/ring/1/approve", json={"reason": "x" * 501}).status_code == 422
    assert desk.commands.sent == []


def test_reading_does_not_permit_deciding(desk: Desk) -> None:
    desk.put()
    token = desk.registry.tokens.create("acme", "reader", {Scope.READ})
    desk.headers = {"Authorization": f"Bearer {token}"}
    assert desk.call("GET", "/ring/1").status_code == 200
    for path in ("/ring/1/approve", "/ring/1/reject"):
        assert desk.call("POST", path).status_code == 403
    assert desk.put(2).status_code == 403
    assert desk.commands.sent == []
