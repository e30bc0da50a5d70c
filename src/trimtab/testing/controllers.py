"""What a controller promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from trimtab.config import ADJUSTABLE
from trimtab.events import Adjust, Advise, Controller, Evaluate, Event, Rollback, Save, Stop
from trimtab.runs.files import json_value, python_value
from trimtab.testing.events import sample_events


def check_controller(make: Callable[[], Controller], events: Sequence[Event] | None = None) -> None:
    """It answers every event with a decision that has a reason, or None; the same events give the same answers;
    and killed after any event, rebuilt, and given its state back (through JSON), it goes on as if nothing happened.
    """
    events = sample_events() if events is None else events
    controller = make()
    assert isinstance(controller.name, str), "name must be a text"
    assert controller.name, "name must not be empty"
    answers, states = [], []
    for event in events:
        states.append(_written(controller))
        answer = controller.decide(event)
        assert answer is None or isinstance(answer, Stop | Save | Rollback | Adjust | Evaluate | Advise), (
            f"decide gave {answer!r}, which is no decision"
        )
        assert answer is None or answer.reason.strip(), f"a decision needs a reason: {answer!r}"
        if isinstance(answer, Adjust):
            entry = ADJUSTABLE.get(answer.name)
            assert entry is not None, f"{answer.name!r} cannot be adjusted"
            assert entry.low <= answer.value <= entry.high, f"{answer!r} is out of range"
        answers.append(answer)
    again = make()
    assert [again.decide(event) for event in events] == answers, "the same events gave other answers"
    for index, state in enumerate(states):
        restored = make()
        restored.load_state(python_value(json.loads(state)))
        assert _written(restored) == state, f"state before event {index} did not survive"
        rest = [restored.decide(event) for event in events[index:]]
        assert rest == answers[index:], f"restored before event {index}, it answers otherwise"


def _written(controller: Controller) -> str:
    """Its state as a checkpoint holds it."""
    state = controller.state()
    try:
        json.dumps(state)
    except TypeError as error:
        raise AssertionError(f"the state must consist of JSON values: {error}") from error
    return json.dumps(json_value(state), sort_keys=True, allow_nan=False)
