"""Tables of one tenant in DuckDB.

New rows go to a table of their own, in the order they come (`{kind}_new_1`, `_2`, ...); upkeep moves
them, ordered for questions and for compression, to `{kind}_sorted` (see `tiers.py`). The view
`{kind}_rows` is both. Rows have no primary key: an index would cost seven times the space, and `store.py` already keeps
keys unique. A value lies in `value32` when its whole batch came as float32 from the wire, else in
`value64`: both compress to about two bytes as they are, while a float32 widened to float64 takes
twice that.
"""

from __future__ import annotations

ROW_COLUMNS = """series integer not null, time_ms bigint not null, value32 float, value64 double,
    sigma float not null, quality utinyint not null, received_ms bigint not null"""
VALUE = "coalesce(value32::double, value64)"

_COMMON = """
create table if not exists series(
    id integer not null, source varchar not null, meter varchar not null,
    quantity varchar not null, phase varchar not null);
create table if not exists conflicts(
    series integer not null, time_ms bigint not null, stored_value double not null,
    refused_value double not null, received_ms bigint not null);
create table if not exists notes(name varchar not null, value bigint not null);
"""

_PER_KIND = """
create table if not exists {kind}_sorted({rows});
create table if not exists {kind}_newest({rows});
create table if not exists {kind}_versions(
    series integer not null, time_ms bigint not null, version integer not null,
    value double not null, sigma float not null, quality utinyint not null,
    received_ms bigint not null, replaced_ms bigint not null, reason varchar not null);
create table if not exists {kind}_buckets(
    step_ms integer not null, series integer not null, time_ms bigint not null,
    count bigint not null, total double not null, low double not null, high double not null,
    last double not null);
create table if not exists {kind}_stale(hour_ms bigint not null, mark bigint not null);
"""

CREATE = _COMMON + "".join(_PER_KIND.format(kind=kind, rows=ROW_COLUMNS) for kind in ("readings", "estimates"))
