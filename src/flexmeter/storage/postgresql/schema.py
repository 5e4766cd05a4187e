"""Tables of one tenant in PostgreSQL; the primary keys also keep a second writer from storing twice."""

from __future__ import annotations

from flexmeter.storage.query import DAY_MS

_COMMON = """
create table if not exists series(
    id integer primary key, source text not null, meter text not null,
    quantity text not null, phase text not null);
create table if not exists conflicts(
    series integer not null, time_ms bigint not null, stored_value float8 not null,
    refused_value float8 not null, received_ms bigint not null);
create index if not exists conflicts_time on conflicts(time_ms);
create table if not exists notes(name text primary key, value bigint not null);
"""

_PER_KIND = """
create table if not exists {kind}(
    series integer not null, time_ms bigint not null, value float8 not null,
    sigma float4 not null, quality smallint not null, received_ms bigint not null,
    primary key (series, time_ms));
create index if not exists {kind}_time on {kind} using brin(time_ms);
create table if not exists {kind}_versions(
    series integer not null, time_ms bigint not null, version integer not null,
    value float8 not null, sigma float4 not null, quality smallint not null,
    received_ms bigint not null, replaced_ms bigint not null, reason text not null,
    primary key (series, time_ms, version));
create table if not exists {kind}_buckets(
    step_ms integer not null, series integer not null, time_ms bigint not null,
    count bigint not null, total float8 not null, low float8 not null, high float8 not null,
    last float8 not null, primary key (step_ms, series, time_ms));
create table if not exists {kind}_stale(hour_ms bigint not null, mark bigint not null);
"""

CREATE = _COMMON + "".join(_PER_KIND.format(kind=kind) for kind in ("readings", "estimates"))

HAS_TIMESCALE = "select count(*) from pg_available_extensions where name = 'timescaledb'"
TIMESCALE = "create extension if not exists timescaledb;" + "".join(
    f"select create_hypertable('{kind}', 'time_ms', chunk_time_interval => {DAY_MS}::bigint, "
    "if_not_exists => true, migrate_data => true);"
    for kind in ("readings", "estimates")
)
