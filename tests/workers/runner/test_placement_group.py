"""How a placement group tells whose it is."""

from xsam.services.jobs.queue import Lease
from xsam.workers.runner.placement_group import new_group_name, owner_of

LEASE = Lease("4yvyyvwh3t7x", "token", 3)


def test_names__tell_the_attempt_and_are_never_given_twice() -> None:
    """Ray refuses a name that another group has; a study holds one group for each trial that runs."""
    names = {new_group_name(LEASE) for _ in range(100)}
    assert len(names) == 100
    assert {owner_of(name) for name in names} == {("4yvyyvwh3t7x", 3)}


def test_names_of_others__belong_to_no_attempt() -> None:
    for name in ("", "theirs", "xsam-", "xsam-4yvyyvwh3t7x-3", "xsam-4yvyyvwh3t7x-x-00", "other-4yvyyvwh3t7x-3-00"):
        assert owner_of(name) is None
