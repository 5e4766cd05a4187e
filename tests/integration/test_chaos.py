"""The proof tools in short form: what a user runs for minutes, here in seconds."""

import asyncio
import json
import subprocess
import sys

import numpy as np
import pytest

from flexmeter.app.arena import Account
from flexmeter.app.bench import Options, run_case
from flexmeter.app.chaos import Plan, run_chaos


def test_short_chaos_loses_nothing_and_stores_nothing_twice(tmp_path):
    said = []
    plan = Plan(kills=4, rate_per_s=100, devices=3, pause_s=1.0, clock=True)
    result = asyncio.run(run_chaos(plan, tmp_path / "chaos", said.append))
    assert result.kills == 4
    assert set(result.by_victim) == {"broker", "platform", "edge", "supervisor"}
    assert result.acknowledged > 100
    assert (result.lost, result.duplicated) == (0, 0)
    assert len(said) == 9


def test_the_account_finds_what_is_lost_or_twice():
    account = Account()
    account.add(np.array([1, 2, 3]), np.array([1, 3, 4]), 2)
    assert (account.acknowledged, account.stored, account.lost, account.duplicated) == (3, 3, 1, 2)


def test_a_short_bench_stores_what_it_publishes(tmp_path):
    result = run_case("packed", tmp_path / "bench", Options(1.0))
    assert result["messages"] > 0
    assert result["values_per_s"] > 0


def test_overload_is_shed_by_the_broker_and_loses_nothing(tmp_path):
    result = run_case("overload", tmp_path / "bench", Options(1.0, rate_per_s=1000))
    assert result["acknowledged"] == result["stored"] > 500
    assert (result["lost"], result["duplicated"]) == (0, 0)


def test_a_neighbour_is_measured_alone_and_beside_a_tenant_within_and_over_its_quota(tmp_path):
    result = run_case("tenants", tmp_path / "bench", Options(1.0, rate_per_s=1000))
    for phase in ("alone", "within_quota", "over_quota"):
        assert result[phase]["acknowledgements"] > 20
        assert result[phase]["puback_ms"]["p99"] > 0
    assert result["greedy"]["acknowledged"] > 400
    assert (result["greedy"]["lost"], result["greedy"]["duplicated"]) == (0, 0)


@pytest.mark.slow
def test_the_leader_of_a_cluster_is_killed_in_mid_stream(tmp_path):
    result = asyncio.run(run_chaos(Plan(kills=3, rate_per_s=100, cluster=True), tmp_path / "chaos", print))
    assert result.acknowledged > 300
    assert (result.kills, result.lost, result.duplicated) == (3, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [False, True])
def test_a_tenant_over_its_quota_loses_nothing_by_kills(tmp_path, cluster):
    plan = Plan(kills=4, rate_per_s=150, quota_per_s=100, cluster=cluster)
    result = asyncio.run(run_chaos(plan, tmp_path / "chaos", print))
    assert result.acknowledged > 1000
    assert (result.kills, result.lost, result.duplicated) == (4, 0, 0)


def flexmeter(*arguments, folder, status=0):
    done = subprocess.run(
        [sys.executable, "-m", "flexmeter", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_commands_without_a_platform_say_so_in_one_line(tmp_path):
    assert "flexmeter init" in flexmeter("up", folder=tmp_path, status=2).stderr
    made = json.loads(flexmeter("init", "--json", folder=tmp_path).stdout)
    assert made["configuration"] == "flexmeter.toml"
    assert "is there already" in flexmeter("init", folder=tmp_path, status=2).stderr
    for command in (["send", "voltage.a=230"], ["tail"]):
        assert "not running" in flexmeter(*command, folder=tmp_path, status=1).stderr
    assert "unknown quantity" in flexmeter("send", "volts=230", folder=tmp_path, status=2).stderr
    checks = {
        one["name"]: one["ok"] for one in json.loads(flexmeter("doctor", "--json", folder=tmp_path, status=1).stdout)
    }
    assert checks["configuration"]
    assert not checks["broker"]
    files = json.loads(flexmeter("backup", "copy", "--json", folder=tmp_path).stdout)["files"]
    assert "data/registry.sqlite" in files
    assert "empty folder" in flexmeter("backup", "copy", folder=tmp_path, status=2).stderr
