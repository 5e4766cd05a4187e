"""Trees, loops and islands under a switch vector."""

import pytest

from flexmeter.errors import NotRadial
from flexmeter.grid import Grid, branches, radial_tree, spanning_tree
from flexmeter.grid.topology import area_buses


def test_tree_lists_parents_first_and_reaches_every_bus(ring: Grid) -> None:
    tree = radial_tree(ring)
    assert sorted(tree.order) == [0, 1, 2, 3, 4]
    seen = set()
    for bus, parent in zip(tree.order, tree.parent, strict=True):
        assert parent == -1 or parent in seen
        seen.add(bus)


def test_closed_ring_is_a_loop_with_a_name(ring: Grid) -> None:
    tree = spanning_tree(ring, (True, True, True))
    assert [branches(ring)[k].id for k in tree.loops] == ["l2"]
    assert not tree.is_radial
    with pytest.raises(NotRadial, match="closed loop through l2"):
        radial_tree(ring, (True, True, True))


def test_buses_without_a_source_are_named(ring: Grid) -> None:
    with pytest.raises(NotRadial, match="no source reaches 3, 4, 5"):
        radial_tree(ring, (True, False, False))


def test_a_switch_vector_of_the_wrong_length_is_refused(ring: Grid) -> None:
    with pytest.raises(ValueError, match="2 entries, expected 3"):
        spanning_tree(ring, (True, False))


def test_switch_vector_round_trip(ring: Grid) -> None:
    assert ring.switch_vector == (True, False, True)
    assert ring.with_switches((False, True, True)).switch_vector == (False, True, True)


def test_area_lists_its_own_buses_head_first(ring: Grid) -> None:
    assert area_buses(ring, "lv") == ("4", "5")
    assert area_buses(ring, "mv") == ("1", "2", "3")


def test_parallel_lines_form_a_loop(ring: Grid) -> None:
    from msgspec.structs import replace

    twin = replace(ring.lines[0], id="twin")
    tree = spanning_tree(replace(ring, lines=(*ring.lines, twin)))
    assert len(tree.loops) == 1
