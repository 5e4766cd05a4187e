"""The REST routes, over a real store and registry, without a network."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from asgi_client import AsgiClient

from flexmeter.api import Platform, QueryLimits, create_app
from flexmeter.errors import AccessError, BrokerError, MessageError, StorageError
from flexmeter.grid import Bus, Grid, Line, Source, Switch, encode_grid, line_type_from_sequence
from flexmeter.messages.rows import Rows, SeriesKey, WriteResult
from flexmeter.registry import Device, Registry, Scope, Topology, open_registry
from flexmeter.storage import Store, TenantStores, estimate_source
from flexmeter.storage.duckdb import open_duckdb_stores

START_MS = 1_780_272_000_000
HOUR = {"from": "2026-06-01T00:00:00Z", "to": "2026-06-01T01:00:00Z"}


@dataclass
class FakeIngest:
    """Records what was posted, or fails as told."""

    posted: list[tuple[str, bytes]] = field(default_factory=list)
    failure: Exception | None = None

    async def __call__(self, tenant: str, payload: bytes) -> WriteResult:
        if self.failure is not None:
            raise self.failure
        self.posted.append((tenant, payload))
        return WriteResult(stored=3, duplicate=2, conflict=1)


@dataclass
class FakeAlert:
    """Records alerts, or fails as told."""

    sent: list[tuple[str, Topology]] = field(default_factory=list)
    failure: Exception | None = None

    async def __call__(self, tenant: str, topology: Topology) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append((tenant, topology))


@dataclass
class Rig:
    """A platform of two tenants, and a client per kind of token."""

    registry: Registry
    stores: TenantStores
    ingest: FakeIngest
    alert: FakeAlert
    not_ready: list[str]
    client: AsgiClient

    def token(self, *scopes: Scope, tenant: str = "acme") -> dict[str, str]:
        made = self.registry.tokens.create(tenant, "test", set(scopes))
        return {"Authorization": f"Bearer {made}"}

    def get(self, path: str, *, scope: Scope = Scope.READ, tenant: str = "acme", **how) -> httpx.Response:
        headers = {**self.token(scope, tenant=tenant), **how.pop("headers", {})}
        return self.client.get(path, headers=headers, **how)

    def put(self, path: str, *, scope: Scope = Scope.TOPOLOGY, **how) -> httpx.Response:
        headers = {**self.token(scope), **how.pop("headers", {})}
        return self.client.put(path, headers=headers, **how)

    def columns(self, path: str, **params) -> dict[str, list]:
        answer = self.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()["columns"]


@pytest.fixture
def limits() -> QueryLimits:
    return QueryLimits(json_rows=1000, body_bytes=2000)


@pytest.fixture
def rig(tmp_path: Path, limits: QueryLimits) -> Iterator[Rig]:
    registry = open_registry(tmp_path / "registry.sqlite", clock=lambda: START_MS)
    stores = open_duckdb_stores(tmp_path / "stores")
    registry.tenants.add("acme")
    registry.tenants.add("rival")
    ingest, alert, not_ready = FakeIngest(), FakeAlert(), []
    app = create_app(
        Platform(
            stores=stores,
            registry=registry,
            ingest=ingest,
            alert=alert,
            metrics=lambda: "flexmeter_received_total 7\n",
            not_ready=lambda: not_ready,
            limits=limits,
        )
    )
    with AsgiClient(app) as client:
        yield Rig(registry, stores, ingest, alert, not_ready, client)
    stores.close()
    registry.close()


@pytest.fixture
def filled(rig: Rig) -> Rig:
    """Two meters of area g1 and one of no area, voltage of one hour."""
    rig.registry.devices.add("acme", [Device("c1", "g1"), Device("c2")])
    store = rig.stores.store("acme")
    keys = [SeriesKey("acme", s, m, "voltage", "a") for s, m in (("c1", "m1"), ("c1", "m2"), ("c2", "m3"))]
    fill(store, keys, minutes=60)
    return rig


def fill(store: Store, keys: list[SeriesKey], minutes: int) -> None:
    series = store.series_ids(keys)
    for minute in range(minutes):
        values = minute + 100.0 * np.arange(len(keys))
        store.write(rows(series, minute, values))


def rows(series: np.ndarray, minute: int, values: np.ndarray) -> Rows:
    n = series.size
    return Rows(
        series=series,
        time_ms=np.full(n, START_MS + minute * 60_000, np.int64),
        value=np.asarray(values, float),
        sigma=np.full(n, 0.5, np.float32),
        quality=np.zeros(n, np.uint8),
    )


def detail(answer: httpx.Response, status: int) -> str:
    """Return the detail of a problem after checking its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    return problem["detail"]


class TestAccess:
    PATHS = ("/api/v1/readings/latest", "/api/v1/topology", "/api/v1/grids", "/metrics")

    @pytest.mark.parametrize("path", PATHS)
    def test_nothing_without_a_token(self, rig: Rig, path: str) -> None:
        answer = rig.client.get(path)
        assert "bearer token" in detail(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize("given", ["Bearer x", "Bearer fm_0_0", "Basic YTpi", "Bearer ", "garbage"])
    def test_nothing_with_a_wrong_one(self, rig: Rig, given: str) -> None:
        answer = rig.client.get("/api/v1/readings/latest", headers={"Authorization": given})
        detail(answer, 401)

    def test_every_route_but_health_and_docs_asks_for_a_token(self, rig: Rig) -> None:
        for path, operations in rig.client.get("/openapi.json").json()["paths"].items():
            for method in operations:
                url = path.replace("{grid}", "ring")
                status = rig.client.request(method, url).status_code
                assert (status == 401) != (path in {"/healthz", "/readyz"}), (method, path, status)

    def test_a_scope_permits_what_it_names(self, rig: Rig) -> None:
        assert "scope" in detail(rig.get("/api/v1/readings/latest", scope=Scope.WRITE), 403)
        assert "scope" in detail(rig.get("/metrics", scope=Scope.READ), 403)
        posted = rig.client.post("/api/v1/readings", headers=rig.token(Scope.READ), content=b"{}")
        assert "write" in detail(posted, 403)
        vector = {"closed": [True]}
        put = rig.put("/api/v1/topology/ring", scope=Scope.WRITE, json=vector, headers={"If-Match": '"1"'})
        assert "topology" in detail(put, 403)

    def test_a_tenant_sees_its_own_only(self, filled: Rig) -> None:
        found = filled.get("/api/v1/readings", params=HOUR, tenant="rival").json()
        assert found["count"] == 0
        assert filled.get("/api/v1/readings", params=HOUR).json()["count"] == 180
        answer = filled.get("/api/v1/readings", params={**HOUR, "area": "g1"}, tenant="rival")
        assert "g1" in detail(answer, 404)

    def test_a_revoked_token_ends_at_once(self, rig: Rig) -> None:
        header = rig.token(Scope.READ)
        assert rig.client.get("/api/v1/topology", headers=header).status_code == 200
        (record,) = rig.registry.tokens.all("acme")
        rig.registry.tokens.revoke("acme", record.id)
        detail(rig.client.get("/api/v1/topology", headers=header), 401)


class TestReadings:
    def test_by_meter_with_a_half_open_span(self, filled: Rig) -> None:
        found = filled.columns(
            "/api/v1/readings",
            meter="m2",
            **{"from": "2026-06-01T02:03:00+02:00", "to": str(START_MS + 5 * 60_000)},
        )
        assert found["value"] == [103.0, 104.0]
        assert found["time_ms"] == [START_MS + 180_000, START_MS + 240_000]
        assert (found["source"], found["meter"]) == (["c1"] * 2, ["m2"] * 2)
        assert (found["phase"], found["sigma"], found["quality"]) == (["a"] * 2, [0.5] * 2, [0] * 2)

    def test_by_device_area_and_several_meters(self, filled: Rig) -> None:
        def meters(**params) -> list[str]:
            return sorted(set(filled.columns("/api/v1/readings", **HOUR, **params)["meter"]))

        assert meters(device="c2") == ["m3"]
        assert meters(area="g1") == ["m1", "m2"]
        assert meters(meter=["m1", "m3"]) == ["m1", "m3"]
        assert meters(quantity="current") == []

    @pytest.mark.parametrize("how", ["parameter", "header"])
    @pytest.mark.parametrize(
        ("form", "media", "read"),
        [
            ("csv", "text/csv", lambda data: pa_csv.read_csv(io.BytesIO(data))),
            ("parquet", "application/vnd.apache.parquet", lambda data: pq.read_table(io.BytesIO(data))),
            (
                "arrow",
                "application/vnd.apache.arrow.stream",
                lambda data: pa.ipc.open_stream(data).read_all(),
            ),
        ],
    )
    def test_the_same_rows_in_every_form(self, filled: Rig, monkeypatch, form, media, read, how) -> None:
        monkeypatch.setattr("flexmeter.storage.store.SLICE_ROWS", 40)  # several pieces
        expected = filled.columns("/api/v1/readings", **HOUR)
        asked = {"params": {**HOUR, "format": form}} if how == "parameter" else {"params": HOUR}
        answer = filled.get("/api/v1/readings", headers={"Accept": f"{media}, */*;q=0.1"}, **asked)
        assert answer.headers["content-type"].partition(";")[0] == media
        found = read(answer.content)
        assert found.num_rows == 180
        for name, column in expected.items():
            assert found[name].to_pylist() == column

    def test_an_empty_answer_in_every_form(self, rig: Rig) -> None:
        for form in ("json", "csv", "parquet", "arrow"):
            answer = rig.get("/api/v1/readings", params={**HOUR, "format": form})
            assert answer.status_code == 200
            assert answer.content

    def test_roll_ups_of_series_and_area(self, filled: Rig) -> None:
        found = filled.columns("/api/v1/readings", resolution="15min", meter="m1", **HOUR)
        assert found["mean"] == [7.0, 22.0, 37.0, 52.0]
        assert found["count"] == [15] * 4
        found = filled.columns("/api/v1/readings", resolution="1h", group="area", area="g1", **HOUR)
        assert (found["mean"], found["series"], found["max"]) == ([79.5], [2], [159.0])

    def test_latest_gaps_quality_success_conflicts_and_versions(self, filled: Rig) -> None:
        store = filled.stores.store("acme")
        series = store.series_ids([SeriesKey("acme", "c1", "m1", "voltage", "a")])
        store.write(rows(series, 0, np.array([77.0])))
        store.correct(rows(series, 1, np.array([1.5])), "typing error")
        base, span = "/api/v1/readings", {"from": HOUR["from"], "to": str(START_MS + 62 * 60_000)}
        assert filled.columns(f"{base}/latest", area="g1")["value"] == [59.0, 159.0]
        gaps = filled.columns(f"{base}/gaps", meter="m1", **span)
        assert gaps["missing"] == [2]
        quality = filled.columns(f"{base}/quality", meter="m1", **span)
        assert (quality["expected"], quality["received"], quality["conflicts"]) == ([62], [60], [1])
        rate = filled.columns(f"{base}/read-success", interval_s="1800", **span)["rate"]
        assert rate == [1.0, 1.0, 0.0]
        assert filled.columns(f"{base}/conflicts", **span)["refused_value"] == [77.0]
        assert filled.columns(f"{base}/versions", **span)["reason"] == ["typing error"]

    @pytest.mark.parametrize(
        ("params", "said"),
        [
            ({"to": "0"}, "from"),
            ({"from": "yesterday", "to": "0"}, "from"),
            ({"from": "2026-06-01T00:00:00", "to": "0"}, "zone"),
            ({"from": "5", "to": "4"}, "before"),
            ({"from": "-5", "to": "4"}, "1970"),
            ({"from": "0", "to": "9" * 18}, "9999"),
            ({"from": "0", "to": "9" * 400}, "to"),
            ({**HOUR, "format": "xml"}, "format"),
            ({**HOUR, "resolution": "2h"}, "resolution"),
            ({**HOUR, "group": "area"}, "resolution"),
        ],
    )
    def test_a_wrong_parameter_is_named(self, rig: Rig, params: dict[str, str], said: str) -> None:
        assert said in detail(rig.get("/api/v1/readings", params=params), 422)

    def test_too_large_for_json(self, filled: Rig) -> None:
        store = filled.stores.store("acme")
        keys = [SeriesKey("acme", "c9", f"m{n}", "voltage", "a") for n in range(900)]
        fill(store, keys, minutes=2)
        assert "parquet" in detail(filled.get("/api/v1/readings", params=HOUR), 413)
        answer = filled.get("/api/v1/readings", params={**HOUR, "format": "arrow"})
        assert pa.ipc.open_stream(answer.content).read_all().num_rows == 1980

    @pytest.mark.parametrize("limits", [QueryLimits(at_once=1)])
    def test_places_are_given_back(self, filled: Rig) -> None:
        for form in ("arrow", "json", "csv"):
            for _ in range(3):
                answer = filled.get("/api/v1/readings", params={**HOUR, "format": form})
                assert answer.status_code == 200

    @pytest.mark.parametrize("limits", [QueryLimits(at_once=0)])
    def test_too_many_at_once(self, filled: Rig) -> None:
        for path in ("", "/gaps"):
            answer = filled.get(f"/api/v1/readings{path}", params=HOUR)
            assert "come again" in detail(answer, 429)
            assert answer.headers["retry-after"] == "1"
        assert filled.get("/api/v1/readings/latest").status_code == 200

    @pytest.mark.parametrize("limits", [QueryLimits(seconds=-1.0)])
    def test_too_slow(self, filled: Rig) -> None:
        assert "ask for less" in detail(filled.get("/api/v1/readings", params=HOUR), 503)


class TestPosting:
    def post(self, rig: Rig, content: bytes) -> httpx.Response:
        return rig.client.post("/api/v1/readings", headers=rig.token(Scope.WRITE), content=content)

    def test_a_batch_goes_to_the_ingest_with_the_tenant_of_the_token(self, rig: Rig) -> None:
        answer = self.post(rig, b"\xa1batch")
        assert answer.json() == {"stored": 3, "duplicate": 2, "conflict": 1}
        assert rig.ingest.posted == [("acme", b"\xa1batch")]

    @pytest.mark.parametrize(
        ("failure", "status"),
        [
            (MessageError("values: expected numbers"), 422),
            (AccessError("device c9 is not of tenant acme"), 403),
            (StorageError("disk full"), 503),
        ],
    )
    def test_a_refusal_says_why(self, rig: Rig, failure: Exception, status: int) -> None:
        rig.ingest.failure = failure
        assert detail(self.post(rig, b"{}"), status) == str(failure)

    def test_a_large_body_is_refused(self, rig: Rig) -> None:
        assert "2000" in detail(self.post(rig, b"x" * 2001), 413)
        assert rig.ingest.posted == []


class TestEstimates:
    def test_by_level_area_and_bus(self, rig: Rig) -> None:
        store = rig.stores.store("acme")
        source = estimate_source("lv", "g1")
        keys = [SeriesKey("acme", source, bus, "voltage", "a") for bus in ("b1", "b2")]
        keys.append(SeriesKey("acme", estimate_source("mv", "g1"), "b1", "voltage", "a"))
        series = store.series_ids(keys)
        for minute in range(3):
            store.write_estimates(rows(series, minute, np.array([1.0, 2.0, 3.0]) + minute))
        found = rig.columns("/api/v1/estimates", level="lv", area="g1", bus="b2", **HOUR)
        assert (found["value"], found["sigma"]) == ([2.0, 3.0, 4.0], [0.5] * 3)
        assert set(found["source"]) == {"lv/g1"}
        found = rig.columns("/api/v1/estimates/latest", level="mv", area="g1")
        assert found["value"] == [5.0]
        assert rig.columns("/api/v1/readings", **HOUR)["value"] == []

    def test_level_and_area_are_needed(self, rig: Rig) -> None:
        assert "level" in detail(rig.get("/api/v1/estimates", params={"area": "g1", **HOUR}), 422)
        assert "area" in detail(rig.get("/api/v1/estimates", params={"level": "lv", **HOUR}), 422)


def ring(*, closed: bool = True, id: str = "ring") -> Grid:
    line_type = line_type_from_sequence(
        "cable", r1_ohm_per_km=0.2, x1_ohm_per_km=0.1, r0_ohm_per_km=0.8, x0_ohm_per_km=0.4
    )
    return Grid(
        id=id,
        buses=tuple(Bus(f"b{n}", 15_000.0) for n in range(3)),
        line_types=(line_type,),
        lines=tuple(Line(f"l{n}", f"b{n}", f"b{(n + 1) % 3}", line_type.id, 1.0) for n in range(3)),
        switches=tuple(Switch(f"s{n}", f"l{n}", closed=closed or n < 2) for n in range(3)),
        sources=(Source("hv", "b0", 15_000.0),),
    )


@pytest.fixture
def ringed(rig: Rig) -> Rig:
    answer = rig.put("/api/v1/grids/ring", scope=Scope.WRITE, content=encode_grid(ring()))
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"grid": "ring", "version": 1, "topology_version": 1}
    rig.alert.sent.clear()
    return rig


class TestGrids:
    def test_the_document_comes_back_as_it_was(self, ringed: Rig) -> None:
        answer = ringed.get("/api/v1/grids/ring")
        assert answer.content == encode_grid(ring())
        assert answer.headers["etag"] == '"1"'
        assert ringed.get("/api/v1/grids").json() == {"grids": ["ring"]}
        assert ringed.get("/api/v1/grids", tenant="rival").json() == {"grids": []}

    @pytest.mark.parametrize(
        ("document", "said"),
        [
            (b"{", "not a Flexmeter grid"),
            (b'{"id": "ring", "bogus": 1}', "bogus"),
            (encode_grid(ring(id="other")), "other"),
            (encode_grid(Grid("ring", lines=ring().lines, buses=ring().buses)), "cable"),
        ],
    )
    def test_a_bad_document_is_refused(self, rig: Rig, document: bytes, said: str) -> None:
        answer = rig.put("/api/v1/grids/ring", scope=Scope.WRITE, content=document)
        assert said in detail(answer, 422)
        assert rig.get("/api/v1/grids").json() == {"grids": []}

    def test_unknown(self, rig: Rig) -> None:
        assert "ring" in detail(rig.get("/api/v1/grids/ring"), 404)


class TestTopology:
    def change(self, rig: Rig, closed: list[object], match: str | None = '"1"', **how) -> httpx.Response:
        headers = {} if match is None else {"If-Match": match}
        body = {"closed": closed, "reason": "losses"}
        return rig.put("/api/v1/topology/ring", headers=headers, json=body, **how)

    def test_the_vector_of_a_new_grid(self, ringed: Rig) -> None:
        answer = ringed.get("/api/v1/topology/ring")
        assert answer.headers["etag"] == '"1"'
        found = answer.json()
        assert (found["version"], found["switches"]) == (1, ["s0", "s1", "s2"])
        assert found["closed"] == [True, True, True]
        assert ringed.get("/api/v1/topology").json() == {"grids": ["ring"]}

    def test_a_change_is_in_force_and_its_alert_out_when_answered(self, ringed: Rig) -> None:
        answer = self.change(ringed, [True, False, True])
        assert answer.status_code == 200, answer.text
        assert answer.headers["etag"] == '"2"'
        ((tenant, topology),) = ringed.alert.sent
        assert (tenant, topology.version, topology.closed) == ("acme", 2, (True, False, True))
        assert ringed.registry.topologies.not_alerted() == ()
        assert ringed.get("/api/v1/topology/ring").json() == answer.json()
        assert answer.json()["author"] == "test"

    def test_a_change_in_the_time_of_the_grid(self, ringed: Rig) -> None:
        body = {"closed": [True, False, True], "time_ms": 1234}
        answer = ringed.put("/api/v1/topology/ring", headers={"If-Match": '"1"'}, json=body)
        assert answer.json()["time_ms"] == 1234
        body["time_ms"] = -1
        detail(ringed.put("/api/v1/topology/ring", headers={"If-Match": '"2"'}, json=body), 422)

    def test_a_change_needs_the_version_in_force(self, ringed: Rig) -> None:
        detail(self.change(ringed, [True, False, True], None), 428)
        self.change(ringed, [True, False, True])
        refused = self.change(ringed, [False, True, True])
        assert "in force is 2" in detail(refused, 412)
        assert refused.headers["etag"] == '"2"'
        for wrong in ("1", '"x"', "*", '"' + "9" * 40 + '"'):
            detail(self.change(ringed, [False, True, True], wrong), 412)
        assert len(ringed.alert.sent) == 1

    @pytest.mark.parametrize("closed", [[], [True], [True] * 4, [1, 0, 1], ["true"] * 3, [None] * 3])
    def test_a_wrong_vector_is_refused(self, ringed: Rig, closed: list[object]) -> None:
        detail(self.change(ringed, closed), 422)
        assert ringed.alert.sent == []

    def test_an_alert_that_did_not_go_out_is_not_forgotten(self, ringed: Rig) -> None:
        ringed.alert.failure = BrokerError("broker is away")
        assert "away" in detail(self.change(ringed, [True, False, True]), 503)
        ((_, pending),) = ringed.registry.topologies.not_alerted()
        assert pending.version == 2
        ringed.alert.failure = None
        again = self.change(ringed, [True, False, True], '"2"')  # the same vector: sent again
        assert again.json()["version"] == 2
        assert ringed.registry.topologies.not_alerted() == ()

    def test_history_by_pages(self, ringed: Rig) -> None:
        for version in range(1, 6):
            vector = [bool(version & bit) for bit in (1, 2, 4)]
            assert self.change(ringed, vector, f'"{version}"').status_code == 200
        path, versions, before = "/api/v1/topology/ring/history", [], None
        while True:
            params = {"limit": 4} | ({} if before is None else {"before": before})
            page = ringed.get(path, params=params).json()
            versions += [one["version"] for one in page["versions"]]
            before = page["next_before"]
            if before is None:
                break
        assert versions == [6, 5, 4, 3, 2, 1]

    def test_unchanged_is_told_without_a_body(self, ringed: Rig) -> None:
        answer = ringed.get("/api/v1/topology/ring", headers={"If-None-Match": '"1"'})
        assert (answer.status_code, answer.content) == (304, b"")

    def test_unknown_grid_and_other_tenant(self, ringed: Rig) -> None:
        detail(ringed.get("/api/v1/topology/other"), 404)
        detail(ringed.get("/api/v1/topology/ring", tenant="rival"), 404)
        headers = {**ringed.token(Scope.TOPOLOGY, tenant="rival"), "If-Match": '"1"'}
        body = {"closed": [True, False, True]}
        detail(ringed.client.put("/api/v1/topology/ring", headers=headers, json=body), 404)

    def test_a_platform_without_the_service_has_no_such_routes(self, rig: Rig) -> None:
        platform = Platform(rig.stores, rig.registry, rig.ingest, None, str, list)
        with AsgiClient(create_app(platform)) as client:
            detail(client.get("/api/v1/topology", headers=rig.token(Scope.READ)), 404)


class TestOperation:
    def test_health_and_readiness(self, rig: Rig) -> None:
        assert rig.client.get("/healthz").json() == {"status": "ok"}
        assert rig.client.get("/readyz").json() == {"status": "ready"}
        rig.not_ready.append("broker: not connected")
        assert detail(rig.client.get("/readyz"), 503) == "broker: not connected"
        assert rig.client.get("/healthz").status_code == 200

    def test_metrics(self, rig: Rig) -> None:
        answer = rig.get("/metrics", scope=Scope.MONITOR)
        assert answer.text == "flexmeter_received_total 7\n"
        assert answer.headers["content-type"].startswith("text/plain")

    def test_unknown_paths_and_methods_are_problems(self, rig: Rig) -> None:
        detail(rig.client.get("/nowhere"), 404)
        detail(rig.client.delete("/healthz"), 405)

    def test_openapi_describes_the_routes(self, rig: Rig) -> None:
        document = rig.client.get("/openapi.json").json()
        assert document["openapi"].startswith("3.1")
        assert {"/api/v1/readings", "/api/v1/topology/{grid}", "/metrics"} <= set(document["paths"])
        names = {p["name"] for p in document["paths"]["/api/v1/readings"]["get"]["parameters"]}
        assert {"device", "meter", "area", "quantity", "from", "to", "resolution", "format"} <= names
