"""Which buses hang together under a switch status vector, and the tree that radial operation makes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from flexmeter.errors import NotRadial
from flexmeter.grid.model import PHASES, Grid, Line, Transformer

Branch = Line | Transformer


@dataclass(frozen=True)
class Tree:
    """A spanning forest of the energised buses, parents first.

    `order` are bus positions in `grid.buses` (sources first); `parent[k]` and `branch[k]` belong to `order[k]`: the
    position of the upstream bus (-1 at a source) and the position of the branch in `branches(grid)`. `loops` are the
    closed branches outside the tree (positions), `islands` the buses no source reaches.
    """

    order: tuple[int, ...]
    parent: tuple[int, ...]
    branch: tuple[int, ...]
    loops: tuple[int, ...]
    islands: tuple[int, ...]

    @property
    def is_radial(self) -> bool:
        """Whether every energised bus is reached in exactly one way."""
        return not self.loops


def branches(grid: Grid) -> tuple[Branch, ...]:
    """Return all branches in the one order used everywhere: lines, then transformers."""
    return grid.lines + grid.transformers


def parallel_branches(chosen: Iterable[Branch]) -> list[list[Branch]]:
    """Return branches in groups: those between the same two buses whose phases differ are one edge.

    A regulator of three one-phase units, or a feeder whose phases run in lines of their own.
    """
    groups: dict[frozenset[str], list[list[Branch]]] = {}
    result = []
    for branch in chosen:
        beside = groups.setdefault(frozenset((branch.from_bus, branch.to_bus)), [])
        for group in beside:
            if not any(set(branch.phases) & set(other.phases) for other in group):
                group.append(branch)
                break
        else:
            beside.append([branch])
            result.append(beside[-1])
    return result


def phases_of(group: Iterable[Branch]) -> str:
    """Return the phases that a group of parallel branches carries."""
    carried = {phase for branch in group for phase in branch.phases}
    return "".join(phase for phase in PHASES if phase in carried)


def unfed_buses(grid: Grid, vector: tuple[bool, ...] | None = None) -> dict[str, str]:
    """Return the buses that no source reaches with all their phases, and the phases that do not arrive.

    A bus is fed over one edge, which must carry all phases of the bus: a load on a phase that does not arrive would
    otherwise see a voltage from nowhere. Where the phases of a bus come from different buses, all are named.
    """
    wanted = {bus.id: set(bus.phases) for bus in grid.buses}
    closed = closed_branches(grid, vector)
    groups = parallel_branches(branch for branch, on in zip(branches(grid), closed, strict=True) if on)
    around: dict[str, list[tuple[str, set[str]]]] = {}
    for group in groups:
        one, other, carried = group[0].from_bus, group[0].to_bus, set(phases_of(group))
        around.setdefault(one, []).append((other, carried))
        around.setdefault(other, []).append((one, carried))
    reached = dict.fromkeys(source.bus for source in grid.sources)
    queue = deque(reached)
    while queue:
        for there, carried in around.get(queue.popleft(), []):
            if there not in reached and wanted[there] <= carried:
                reached[there] = None
                queue.append(there)
    result = {}
    for bus in grid.buses:
        if bus.id not in reached:
            arriving = [carried for there, carried in around.get(bus.id, []) if there in reached]
            lost = set(bus.phases) - set().union(*arriving)
            result[bus.id] = "".join(sorted(lost or bus.phases))
    return result


def closed_branches(grid: Grid, vector: tuple[bool, ...] | None = None) -> list[bool]:
    """Return for each branch whether it conducts: all its switches are closed (no switch = closed)."""
    vector = grid.switch_vector if vector is None else vector
    if len(vector) != len(grid.switches):
        raise ValueError(f"switch vector has {len(vector)} entries, expected {len(grid.switches)}")
    opened = {switch.branch for switch, closed in zip(grid.switches, vector, strict=True) if not closed}
    return [branch.id not in opened for branch in branches(grid)]


def spanning_tree(grid: Grid, vector: tuple[bool, ...] | None = None) -> Tree:
    """Return the breadth-first spanning forest from all sources under a switch status vector.

    A path between two sources shows up as a loop, as the paper keeps substations apart (section 5).
    """
    position = {bus.id: k for k, bus in enumerate(grid.buses)}
    neighbours: list[list[tuple[int, int]]] = [[] for _ in grid.buses]
    closed = closed_branches(grid, vector)
    for k, branch in enumerate(branches(grid)):
        if closed[k]:
            one, other = position[branch.from_bus], position[branch.to_bus]
            neighbours[one].append((k, other))
            neighbours[other].append((k, one))
    tree = _search(neighbours, [position[source.bus] for source in grid.sources])
    return replace(tree, loops=_without_parallel_phases(tree, branches(grid)))


def _without_parallel_phases(tree: Tree, all_branches: tuple[Branch, ...]) -> tuple[int, ...]:
    """Return the loops but those that are only other phases of an edge of the tree."""
    if not tree.loops:
        return ()
    edges = [k for k in tree.branch if k >= 0]
    groups = parallel_branches(all_branches[k] for k in (*edges, *tree.loops))
    first = {group[0].id for group in groups}
    return tuple(k for k in tree.loops if all_branches[k].id in first)


def _search(neighbours: list[list[tuple[int, int]]], roots: list[int]) -> Tree:
    upstream = {root: (-1, -1) for root in roots}
    queue = deque(dict.fromkeys(roots))
    order: list[int] = []
    loops: dict[int, None] = {}
    while queue:
        here = queue.popleft()
        order.append(here)
        for branch, there in neighbours[here]:
            if branch == upstream[here][1]:
                continue
            if there in upstream:
                loops[branch] = None
            else:
                upstream[there] = (here, branch)
                queue.append(there)
    tree_branches = {branch for _, branch in upstream.values()}
    return Tree(
        order=tuple(order),
        parent=tuple(upstream[k][0] for k in order),
        branch=tuple(upstream[k][1] for k in order),
        loops=tuple(branch for branch in loops if branch not in tree_branches),
        islands=tuple(k for k in range(len(neighbours)) if k not in upstream),
    )


def radial_tree(grid: Grid, vector: tuple[bool, ...] | None = None) -> Tree:
    """Return the tree of a radial grid, or raise `NotRadial` naming what closes a loop or is cut off."""
    tree = spanning_tree(grid, vector)
    if tree.loops:
        names = ", ".join(branches(grid)[k].id for k in tree.loops[:6])
        raise NotRadial(f"grid {grid.id}: closed loop through {names}")
    if tree.islands:
        names = ", ".join(grid.buses[k].id for k in tree.islands[:6])
        raise NotRadial(f"grid {grid.id}: no source reaches {names}")
    return tree


def area_buses(grid: Grid, area_id: str) -> tuple[str, ...]:
    """Return the buses of an area itself (without those of the areas inside it), head bus first."""
    heads = {area.id: area.head_bus for area in grid.areas}
    members = [bus.id for bus in grid.buses if bus.area == area_id and bus.id != heads[area_id]]
    return (heads[area_id], *members)
