"""How many trials fit on a cluster, against trying every way to place them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.room import DRIVER, Needs, at_once, bundles, room_for, wanted_and_available

amounts = st.sampled_from([0.25, 0.5, 1.0, 1.5])
bundle = st.fixed_dictionaries({"CPU": amounts}, optional={"GPU": st.sampled_from([0.5, 1.0])})
node = st.fixed_dictionaries({"CPU": st.sampled_from([1.0, 2.0, 3.0])}, optional={"GPU": st.sampled_from([1.0, 2.0])})


def placeable(bundles, nodes):
    """Brute force: some assignment of bundles to nodes is within every node's resources."""
    for places in itertools.product(range(len(nodes)), repeat=len(bundles)):
        used = [{} for _ in nodes]
        for place, one in zip(places, bundles, strict=True):
            for name, amount in one.items():
                used[place][name] = used[place].get(name, 0) + amount
        if all(amount <= there.get(name, 0) + 1e-9 for there, own in zip(nodes, used, strict=True) for name, amount in own.items()):
            return True
    return False


@given(st.lists(bundle, min_size=1, max_size=4), st.lists(node, min_size=1, max_size=3))
def test_a_trial_s_bundles_are_its_processes_by_node(processes, nodes):
    found = bundles([DRIVER, *processes], nodes)
    if found is None:
        return
    assert found[0] == DRIVER
    assert room_for(found, nodes, most=1) == 1
    assert len(found) - 1 <= len(nodes)
    for name in ("CPU", "GPU"):
        assert sum(one.get(name, 0) for one in found[1:]) == pytest.approx(sum(one.get(name, 0) for one in processes))


def test_a_process_as_small_as_the_driver_has_room_too():
    assert bundles([DRIVER, {"CPU": 0.25}, dict(DRIVER), dict(DRIVER)], [{"CPU": 2.0}]) == [DRIVER, {"CPU": 0.27}]


def test_small_processes_leave_large_nodes_to_large_ones():
    assert bundles([DRIVER, {"CPU": 3.0}, {"CPU": 2.0}, {"CPU": 2.0}], [{"CPU": 4.1}, {"CPU": 3.0}]) is not None


def test_what_has_no_room_has_no_bundles():
    assert bundles([DRIVER, {"CPU": 2.0}], [{"CPU": 2.0}]) is None
    assert bundles([DRIVER, {"CPU": 1.0}, {"CPU": 1.0}], [{"CPU": 1.0}, {"CPU": 1.01}]) is not None
    assert bundles([DRIVER, {"CPU": 0.5}, {"CPU": 0.25}, {"GPU": 1.0}], [{"CPU": 2.0}, {"GPU": 1.0}]) == [
        DRIVER,
        {"GPU": 1.0},
        {"CPU": 0.75},
    ]


@given(st.lists(bundle, min_size=1, max_size=2), st.lists(node, min_size=1, max_size=2))
def test_what_is_said_to_fit_can_be_placed(needed, nodes):
    before = [dict(one) for one in nodes]
    count = room_for(needed, nodes, most=3)
    assert 0 <= count <= 3
    assert placeable(list(needed) * count, nodes)
    assert nodes == before


def test_on_a_single_node_it_is_the_quotient():
    assert room_for([{"CPU": 0.01}, {"CPU": 0.5}, {"CPU": 0.5}], [{"CPU": 2.0}], most=9) == 1
    assert room_for([{"CPU": 0.01}, {"CPU": 0.25}], [{"CPU": 2.0}], most=9) == 7
    assert room_for([{"CPU": 0.1}] * 3, [{"CPU": 0.3}], most=9) == 1  # 0.1 + 0.1 + 0.1 > 0.3 in binary
    assert room_for([{"GPU": 1.0}], [{"CPU": 8.0}], most=2) == 0
    assert room_for([{"CPU": 1.0, "learner": 0.001}], [{"CPU": 8.0}, {"CPU": 1.0, "learner": 1.0}], most=9) == 1


def test_the_table_shows_what_is_wanted_beside_what_there_is():
    table = wanted_and_available([{"CPU": 0.5}, {"CPU": 1.0, "GPU": 2.0}], [{"CPU": 4.0}, {"CPU": 2.0, "GPU": 1.0}])
    rows = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    assert rows == [("CPU", "1.5", "1", "6", "4"), ("GPU", "2", "2", "1", "1")]


def test_memory_limits_how_many_run_side_by_side_but_does_not_forbid_one():
    small, large = Needs([DRIVER, {"CPU": 0.5}], memory=2e9), Needs([DRIVER, {"CPU": 0.5}], memory=9e9)
    nodes = [{"CPU": 4.0, "memory": 8e9}]
    assert at_once([small] * 9, nodes, most=9) == 4
    assert at_once([small, large], nodes, most=9) == 1
    assert at_once([small] * 9, [{"CPU": 1.1, "memory": 8e9}], most=9) == 2
    assert at_once([small] * 9, nodes, most=3) == 3
