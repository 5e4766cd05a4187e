"""`report.html`: the table *paper | here*, the changes and the figures of a run, in one file that can be sent."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from flexmeter.scenario.record import DayRecord
from flexmeter.scenario.summary import Row

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; height: auto; margin: .6rem 0 }
.note { color: #666 }
"""


def write_report(record: DayRecord, rows: list[Row], figures: dict[str, Path], path: Path) -> None:
    """Write the report; the figures are embedded."""
    title = f"Flexmeter: {record.grid_id} grid, {record.minutes} minutes, {record.customers:,} customers"
    body = [f"<h1>{html.escape(title)}</h1>", _note(record), _table(("", "paper", "here"), rows)]
    if record.changes:
        changes = [(str(c.minute), c.opened, c.closed) for c in record.changes]
        body += ["<h2>Changes of topology</h2>", _table(("minute", "opened", "closed"), changes)]
    body += [f'<img alt="{html.escape(name)}" src="{_embed(figure)}">' for name, figure in figures.items()]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><body>{''.join(body)}</body></html>"
    )
    path.write_text(page, encoding="utf-8")


def _note(record: DayRecord) -> str:
    text = (
        f"Seed {record.seed}. The reference grid is a calibration to the five figures the paper publishes; "
        "lines, loads and LV grids are not given there. Bands are two standard deviations."
    )
    return f'<p class="note">{html.escape(text)}</p>'


def _table(head: tuple[str, str, str], rows: list[Row]) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + f"</tr>{cells}</table>"


def _embed(figure: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(figure.read_bytes()).decode()
