"""What a person sees while the day runs: one live panel on stderr, a plain line now and then without a terminal."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from flexmeter.console import console
from flexmeter.scenario.record import Change
from flexmeter.scenario.summary import Row

PLAIN_EVERY_S = 10.0


@dataclass
class Snapshot:
    """The newest figures of a run: the minute, messages so far, MV voltages [% of nominal], losses [kW], changes."""

    minute: int = 0
    messages: int = 0
    lowest_percent: float = 0.0
    highest_percent: float = 0.0
    losses_kw: float = 0.0
    changes: list[Change] = field(default_factory=list)


class Display:
    """Shows a `Snapshot` that the caller keeps up to date; use as a context manager."""

    def __init__(self, title: str, minutes: int, *, quiet: bool = False) -> None:
        self.snapshot = Snapshot()
        self._console = console(stderr=True, quiet=quiet)
        self._started = time.monotonic()
        self._last_plain = self._started
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=40),
            TextColumn("minute {task.completed:.0f} of {task.total:.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task(title, total=minutes)
        self._live = Live(self._render(), console=self._console, refresh_per_second=8) if self._terminal else None

    @property
    def _terminal(self) -> bool:
        return self._console.is_terminal

    def __enter__(self) -> Display:
        """Start to show."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Show the last state and stop."""
        self.refresh()
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the panel."""
        self._console.print(text)

    def refresh(self) -> None:
        """Show the snapshot as it is now."""
        self._progress.update(self._task, completed=self.snapshot.minute)
        if self._live:
            self._live.update(self._render())
        elif time.monotonic() - self._last_plain > PLAIN_EVERY_S:
            self._last_plain = time.monotonic()
            self.say(" | ".join(f"{name} {value}" for name, value in self._figures()))

    def _figures(self) -> list[tuple[str, str]]:
        now = self.snapshot
        rate = now.messages / max(time.monotonic() - self._started, 1e-3)
        last = f", last: minute {now.changes[-1].minute}, open {now.changes[-1].opened}" if now.changes else ""
        return [
            ("minute", str(now.minute)),
            ("messages", f"{now.messages:,} ({rate:,.0f}/s)"),
            ("MV voltage", f"{now.lowest_percent:.2f} to {now.highest_percent:.2f} % of nominal"),
            ("MV losses", f"{now.losses_kw:.1f} kW"),
            ("changes of topology", f"{len(now.changes)}{last}"),
        ]

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for name, value in self._figures()[1:]:
            table.add_row(Text(name, style="dim"), value)
        return Group(self._progress, table)


def print_comparison(rows: list[Row], terminal: Console | None = None) -> None:
    """Print the table *paper | here* to stdout."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("paper", justify="right")
    table.add_column("here", justify="right")
    for row in rows:
        table.add_row(*row)
    (terminal or console()).print(table)
