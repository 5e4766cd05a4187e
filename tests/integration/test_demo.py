"""Ten minutes of the day through the real broker, with every process of the demo, against the library alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from flexmeter.scenario.day import run_day
from flexmeter.scenario.demo import run_demo
from flexmeter.scenario.options import DayOptions
from flexmeter.scenario.results import write_results


@pytest.mark.timeout(280)
def test_ten_minutes_through_the_chain_equal_the_library_alone(tmp_path: Path) -> None:
    options = DayOptions(minutes=10)
    chain = run_demo(options, tmp_path / "demo", quiet=True)
    alone = run_day(options, quiet=True)

    assert chain.record.changes == alone.record.changes
    assert chain.record.changes, "the first change of the day falls into these minutes"
    for name in ("mv_voltage", "lv_voltage", "substation_power"):
        mine, theirs = getattr(chain.record, name), getattr(alone.record, name)
        # readings of the plants travel as 32-bit floats, everything else as 64-bit
        np.testing.assert_allclose(mine.estimate, theirs.estimate, rtol=1e-7, err_msg=name)
        np.testing.assert_allclose(mine.sigma, theirs.sigma, rtol=1e-5, err_msg=name)

    counts = chain.record.counts
    assert counts is not None
    assert counts.published == 10 * (203 + 200 + 9 + 1)
    assert counts.published == counts.received == counts.stored
    assert (counts.duplicate, counts.rejected, counts.queued) == (0, 0, 0)

    summary, _ = write_results(chain, tmp_path / "demo")
    assert json.loads((tmp_path / "demo/summary.json").read_text()) == json.loads(json.dumps(summary))
    latencies = summary["latency_ms"]
    assert isinstance(latencies, dict)
    assert {"mqtt_round_trip", "concentrator", "lv", "mv", "end_to_end"} <= latencies.keys()
    assert sorted(path.name for path in (tmp_path / "demo").iterdir() if path.is_dir()) == [], "nothing is left behind"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_half_way_it_leaves_no_process_no_file_and_one_line(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flexmeter", "demo", "--minutes", "1440", "--out", str(tmp_path / "demo")]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in its background ignores it
    demo = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    parent = psutil.Process(demo.pid)
    _wait_for(lambda: len(parent.children()) >= 4 or demo.poll() is not None)
    children = parent.children(recursive=True)
    os.kill(demo.pid, number)
    _, errors = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert errors.splitlines()[-1] == "flexmeter: interrupted"
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert list((tmp_path / "demo").iterdir()) == []


def _wait_for(condition: object, patience_s: float = 120.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["demo", "--minutes", "0"], "--minutes"),
        (["demo", "--speed", "fast"], "--speed fast: expected max or a positive number"),
        (["demo", "--nonsense"], "No such option"),
        (["day", "--grid", "mars"], "'mars' is not one of"),
        (["demo", "--out", "/proc/nowhere"], "--out /proc/nowhere: cannot be written"),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments: list[str], text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flexmeter", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
