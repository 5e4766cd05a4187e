"""Any request gets an answer that the OpenAPI document allows: a success or a problem, never a crash."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from asgi_client import AsgiClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexmeter.api import Platform, create_app
from flexmeter.grid import Bus, Grid, Line, Source, Switch, encode_grid, line_type_from_sequence
from flexmeter.messages.codec import decode_readings
from flexmeter.messages.rows import SeriesKey, WriteResult
from flexmeter.registry import Scope, Topology, open_registry
from flexmeter.storage.duckdb import open_duckdb_stores

TIME = st.one_of(
    st.sampled_from(["2026-06-01T00:00:00Z", "1780272000000", "2026-06-01", "0", "-1", "1e3", "NaN", "∞", "", "٣"]),
    st.integers().map(str),
    st.datetimes().map(str),
    st.text(max_size=12),
)
NAME = st.one_of(st.sampled_from(["m1", "c1", "voltage", "a", "' or 1=1 --", "../..", "%00", "é"]), st.text(max_size=8))
SEVERAL = st.lists(NAME, max_size=3)
QUERY = st.fixed_dictionaries(
    {},
    optional={
        "from": TIME,
        "to": TIME,
        "device": SEVERAL,
        "meter": SEVERAL,
        "area": SEVERAL,
        "quantity": SEVERAL,
        "phase": SEVERAL,
        "bus": SEVERAL,
        "level": st.sampled_from(["lv", "mv", "concentrator", "hv", ""]),
        "resolution": st.sampled_from(["1min", "15min", "1h", "1day", "2h", ""]),
        "group": st.sampled_from(["series", "area", "x"]),
        "format": st.sampled_from(["json", "csv", "parquet", "arrow", "xml"]),
        "interval_s": st.one_of(st.integers().map(str), st.sampled_from(["60", "x"])),
        "before": st.integers().map(str),
        "limit": st.integers().map(str),
    },
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.sampled_from(["closed", "reason", "time_ms", "id", "buses"]), st.text(max_size=3)), inner
        ),
    ),
    max_leaves=8,
)
BODY = st.one_of(st.binary(max_size=40), JSON.map(msgspec.json.encode))
FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiClient]:
    folder = tmp_path_factory.mktemp("fuzz")
    registry = open_registry(folder / "registry.sqlite")
    registry.tenants.add("acme")
    stores = open_duckdb_stores(folder)
    stores.store("acme").series_ids([SeriesKey("acme", "c1", "m1", "voltage", "a")])

    async def ingest(tenant: str, payload: bytes) -> WriteResult:
        decode_readings(payload)
        return WriteResult(1, 0, 0)

    async def alert(tenant: str, topology: Topology) -> None:
        return None

    app = create_app(Platform(stores, registry, ingest, alert, lambda: "", list))
    token = registry.tokens.create("acme", "fuzz", set(Scope))
    with AsgiClient(app) as made:
        made.headers["Authorization"] = f"Bearer {token}"
        made.put("/api/v1/grids/ring", content=encode_grid(ring()))
        yield made
    stores.close()
    registry.close()


def ring() -> Grid:
    line_type = line_type_from_sequence(
        "cable", r1_ohm_per_km=0.2, x1_ohm_per_km=0.1, r0_ohm_per_km=0.8, x0_ohm_per_km=0.4
    )
    return Grid(
        "ring",
        buses=tuple(Bus(f"b{n}", 15_000.0) for n in range(3)),
        line_types=(line_type,),
        lines=tuple(Line(f"l{n}", f"b{n}", f"b{(n + 1) % 3}", "cable", 1.0) for n in range(3)),
        switches=tuple(Switch(f"s{n}", f"l{n}") for n in range(3)),
        sources=(Source("hv", "b0", 15_000.0),),
    )


def check(answer) -> None:
    if answer.status_code >= 400:
        assert answer.status_code < 500, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert problem["detail"]
    else:
        assert answer.status_code in {200, 304}


PATHS = [
    "/api/v1/readings",
    "/api/v1/readings/latest",
    "/api/v1/readings/quality",
    "/api/v1/readings/gaps",
    "/api/v1/readings/read-success",
    "/api/v1/readings/conflicts",
    "/api/v1/readings/versions",
    "/api/v1/estimates",
    "/api/v1/estimates/latest",
    "/api/v1/topology/ring/history",
]


@pytest.mark.parametrize("path", PATHS)
@FUZZ
@given(params=QUERY, accept=st.text(st.characters(max_codepoint=127, exclude_categories=["Cc"]), max_size=20))
def test_questions(client: AsgiClient, path: str, params: dict[str, object], accept: str) -> None:
    check(client.get(path, params=params, headers={"Accept": accept}))


@FUZZ
@given(body=BODY, match=st.sampled_from(['"1"', '"2"', "*", "", "W/1"]))
def test_vectors(client: AsgiClient, body: bytes, match: str) -> None:
    headers = {"If-Match": match, "Content-Type": "application/json"}
    check(client.put("/api/v1/topology/ring", content=body, headers=headers))


@FUZZ
@given(body=BODY, grid=NAME)
def test_grids(client: AsgiClient, body: bytes, grid: str) -> None:
    path = client.path("/api/v1/grids/", grid)
    check(client.put(path, content=body))
    check(client.get(client.path("/api/v1/topology/", grid)))


@FUZZ
@given(body=BODY)
def test_batches(client: AsgiClient, body: bytes) -> None:
    check(client.post("/api/v1/readings", content=body))


@FUZZ
@given(token=st.text(st.characters(max_codepoint=127, exclude_categories=["Cc"]), max_size=40))
def test_tokens(client: AsgiClient, token: str) -> None:
    answer = client.get("/api/v1/topology", headers={"Authorization": token})
    assert answer.status_code == 401
    check(answer)
