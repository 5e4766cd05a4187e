"""Tables of one tenant in ClickHouse.

A row inserted again under its key with a greater `version` replaces the one before when parts are
merged; `final` in a question sees it at once.
"""

from __future__ import annotations

from flexmeter.storage.query import DAY_MS

_SAFE = "settings fsync_after_insert = 1, fsync_part_directory = 1"
_ROW = "value Float64, sigma Float32, quality UInt8, received_ms Int64"

_COMMON = (
    """create table if not exists {db}.series(
        id Int32, source String, meter String, quantity String, phase String, version UInt64)
        engine = ReplacingMergeTree(version) order by id """
    + _SAFE,
    """create table if not exists {db}.conflicts(series Int32, time_ms Int64, stored_value Float64,
        refused_value Float64, received_ms Int64)
        engine = MergeTree order by (series, time_ms) """
    + _SAFE,
    """create table if not exists {db}.notes(name String, value Int64, version UInt64)
        engine = ReplacingMergeTree(version) order by name """
    + _SAFE,
)
_PER_KIND = (
    f"""create table if not exists {{db}}.{{kind}}(series Int32, time_ms Int64, {_ROW}, version UInt64)
        engine = ReplacingMergeTree(version) order by (series, time_ms)
        partition by intDiv(time_ms, {30 * DAY_MS}) """
    + _SAFE,
    f"""create table if not exists {{db}}.{{kind}}_versions(series Int32, time_ms Int64, version Int32,
        {_ROW}, replaced_ms Int64, reason String)
        engine = ReplacingMergeTree order by (series, time_ms, version) """
    + _SAFE,
    """create table if not exists {db}.{kind}_buckets(step_ms Int32, series Int32, time_ms Int64, count Int64,
        total Float64, low Float64, high Float64, last Float64, version UInt64)
        engine = ReplacingMergeTree(version) order by (step_ms, series, time_ms) """
    + _SAFE,
    """create table if not exists {db}.{kind}_stale(hour_ms Int64, mark Int64)
        engine = MergeTree order by hour_ms """
    + _SAFE,
)


def statements(database: str) -> list[str]:
    """Return what creates the database and the tables that are missing."""
    made = [f"create database if not exists {database}", *(one.format(db=database) for one in _COMMON)]
    return made + [one.format(db=database, kind=kind) for kind in ("readings", "estimates") for one in _PER_KIND]
