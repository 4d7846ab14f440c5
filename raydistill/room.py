"""What room a trial reserves, as the bundles of a placement group, and how many trials there is room for.

A bundle holds all that a trial has on one node. With a bundle for each process Ray may put small ones into the bundles of large ones, and
the large ones then wait for ever, though in all there is room enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raydistill.cluster import placement
from raydistill.errors import InputError
from raydistill.plan import Part

if TYPE_CHECKING:
    from rich.table import Table

Resources = dict[str, float]

DRIVER: Resources = {"CPU": 0.01}
"""A trial's own process: it holds references and waits."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Needs:
    """Of one trial."""

    bundles: list[Resources]
    memory: float
    """Bytes, estimated."""


def needs_of(parts: Sequence[Part], nodes: Sequence[Mapping[str, float]]) -> Needs:
    """What a trial of these processes reserves. Raises InputError, after a table on stderr, where there is no room for it.

    Ray must be initialised.
    """
    from rich.console import Console

    processes = wanted(parts)
    found = bundles(processes, nodes)
    if found is None:
        Console(stderr=True).print(wanted_and_available(processes, nodes))
        raise InputError(
            "sweep: no room is found on the cluster for a trial's processes, see the table above; lower the numbers of workers or their "
            "'cpus' and 'gpus', or use a larger cluster"
        )
    return Needs(found, sum(part.processes * part.memory for part in parts))


def at_once(needs: Sequence[Needs], nodes: Sequence[Mapping[str, float]], most: int) -> int:
    """How many of the trials, whichever they are, there is room for, `most` at the most.

    Memory is an estimate: it limits how many run side by side, and does not forbid one.
    """
    by_room = min(room_for(need.bundles, nodes, most) for need in needs)
    by_memory = int(sum(node.get("memory", 0.0) for node in nodes) / max(need.memory for need in needs))
    return max(1, min(by_room, by_memory))


def wanted(parts: Sequence[Part]) -> list[Resources]:
    """What each of a trial's processes asks Ray for, its driver's share first. Ray must be initialised."""
    found = [dict(DRIVER)]
    for part in parts:
        own = {"CPU": part.cpus, "GPU": part.gpus, **(placement(part.kind) if part.kind else {})}
        asked = {name: amount for name, amount in own.items() if amount}
        found += [dict(asked) for _ in range(part.processes) if asked]
    return found


def bundles(processes: Sequence[Resources], nodes: Sequence[Mapping[str, float]]) -> list[Resources] | None:
    """The driver's share, and a bundle for each node that the other processes come to lie on; None where no room is found for them.

    `processes` are those of `wanted`, the driver first. Largest first, each goes to the node with the least room that is room enough.
    """
    driver, *others = processes
    free = [dict(node) for node in nodes]
    held: dict[int, Resources] = {}
    for process in sorted(others, key=_size, reverse=True):
        place = next(
            (place for place in sorted(range(len(free)), key=lambda place: _size(free[place])) if _take(process, free[place])), None
        )
        if place is None:
            return None
        bundle = held.setdefault(place, {})
        for name, amount in process.items():
            bundle[name] = round(bundle.get(name, 0.0) + amount, 4)  # Ray counts in ten-thousandths
    return [dict(driver), *held.values()] if any(_take(driver, node) for node in free) else None


def _size(resources: Mapping[str, float]) -> tuple[float, float]:
    return resources.get("GPU", 0.0), resources.get("CPU", 0.0)


def room_for(group: Sequence[Resources], nodes: Sequence[Mapping[str, float]], most: int) -> int:
    """How many groups of bundles fit on the nodes at once, `most` at the most; first-fit, so that what it says can be started."""
    free = [dict(node) for node in nodes]
    largest_first = sorted(group, key=_size, reverse=True)
    for count in range(most):
        if not all(any(_take(bundle, node) for node in free) for bundle in largest_first):
            return count
    return most


def _take(wanted: Resources, node: Resources) -> bool:
    """Take resources from what a node has, if it has them all."""
    if any(node.get(name, 0.0) + _ROUNDING < amount for name, amount in wanted.items()):
        return False
    for name, amount in wanted.items():
        node[name] -= amount
    return True


def nodes_of_cluster() -> list[dict[str, float]]:
    """Resources of each node that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def wanted_and_available(processes: Sequence[Resources], nodes: Sequence[Mapping[str, float]]) -> Table:
    """What one trial wants, in all and by its largest process, beside what the nodes have."""
    from rich.table import Table

    table = Table("resource", "a trial wants", "one process", "there is", "on one node", title="wanted and available", title_justify="left")
    for name in sorted({name for process in processes for name in process}):
        own, there = ([amounts.get(name, 0.0) for amounts in of] for of in (processes, nodes))
        table.add_row(name, f"{sum(own):g}", f"{max(own):g}", f"{sum(there):g}", f"{max(there, default=0.0):g}")
    return table
