"""Write what a run leaves: summary.json, the figures, report.html."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from flexmeter.errors import InputError
from flexmeter.grid import Grid
from flexmeter.scenario.figures import draw_all
from flexmeter.scenario.record import DayRecord
from flexmeter.scenario.report import write_report
from flexmeter.scenario.summary import Row, comparison, summarise


@dataclass(frozen=True)
class Run:
    """A finished run: its grid and its record."""

    grid: Grid
    record: DayRecord


def prepare_folder(out: Path) -> None:
    """Make the folder of the results, or raise `InputError` that says why it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror or error}") from error


def write_results(run: Run, out: Path) -> tuple[dict[str, object], list[Row]]:
    """Write everything into a folder; return the summary and the rows *what, paper, here*."""
    prepare_folder(out)
    summary = summarise(run.record)
    rows = comparison(summary)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    figures = draw_all(run.record, run.grid, out)
    write_report(run.record, rows, figures, out / "report.html")
    return summary, rows
