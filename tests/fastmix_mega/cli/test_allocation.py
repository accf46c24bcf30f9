"""Which nodes a job goes on with; tests/slurm loses real ones."""

from __future__ import annotations

import pytest

from fastmix_mega.cli.allocation import numbers_to_try, port_of, srun


@pytest.mark.parametrize(
    ("healthy", "wanted", "least", "numbers"),
    [
        (3, 2, 2, [2]),
        (4, 4, 2, [4, 3, 2]),
        (3, 4, 2, [3, 2]),
        (3, 4, 4, []),
        (1, 4, 2, []),
        (0, 1, 1, []),
    ],
    ids=["a spare one", "all", "fewer", "fewer are not allowed", "too few", "none"],
)
def test_the_most_nodes_first(healthy: int, wanted: int, least: int, numbers: list[int]) -> None:
    assert numbers_to_try(healthy, wanted, least) == numbers


def test_a_step_shares_what_a_lost_nodes_step_holds() -> None:
    command = srun(["node1", "node3"], "true", options=["--output=log"])
    place = ["--nodes", "2", "--ntasks", "2", "--nodelist", "node1,node3"]
    assert command == ["srun", "--overlap", *place, "--output=log", "true"]


def test_steps_that_may_meet_on_a_node_have_ports_of_their_own() -> None:
    every = [port_of(job, again, start) for job in (1, 2) for again in range(4) for start in (1, 2)]
    assert len(set(every)) == len(every)
    assert all(20000 <= port < 32000 for port in every)
