"""What no other format here can say, refused before anything is written."""

from __future__ import annotations

from flexmeter.errors import Finding, GridError
from flexmeter.grid.model import PHASES, Grid
from flexmeter.grid.topology import branches, parallel_branches


def refuse_phases_apart(grid: Grid, program: str) -> None:
    """Raise `GridError` for branches that three-phase formats would put in parallel on all phases.

    Lines between the same buses on different phases, and transformers of one or two phases: padded to three they would
    carry each other's load.
    """
    groups = [group for group in parallel_branches(branches(grid)) if len(group) > 1]
    apart = {branch.id for group in groups for branch in group}
    apart |= {item.id for item in grid.transformers if item.phases != PHASES}
    if apart:
        text = f"has phases of its own between its buses, which {program} cannot say"
        raise GridError([Finding("branch", tuple(sorted(apart)), "phases", text)], grid.id)
