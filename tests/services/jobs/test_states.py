import pytest

from xsam.services.jobs.states import TERMINAL_STATES, TRANSITIONS, JobState, is_terminal


def test_transitions__name_every_state() -> None:
    assert set(TRANSITIONS) == set(JobState)


def test_terminal_states__are_left_for_the_queue_only_and_success_never() -> None:
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == TERMINAL_STATES
    assert {state: TRANSITIONS[state] for state in TERMINAL_STATES} == {
        JobState.SUCCEEDED: frozenset(),
        JobState.FAILED: {JobState.QUEUED},
        JobState.CANCELLED: {JobState.QUEUED},
    }


@pytest.mark.parametrize("state", JobState)
def test_every_state__can_be_reached_and_left_for_a_terminal_one(state: JobState) -> None:
    reached, todo = {state}, [state]
    while todo:
        new = TRANSITIONS[todo.pop()] - reached
        reached |= new
        todo += new
    assert is_terminal(state) or reached & TERMINAL_STATES
    assert state is JobState.QUEUED or any(state in following for following in TRANSITIONS.values())
