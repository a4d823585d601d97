"""The protocol of atomic units as a model: every order of steps, stops, recoverers and forgetters.

One unit, a decider, and two participants. Anybody may stop anywhere for ever; the decider's server
may end its transaction at any time; two recoverers for each participant and one forgetter run
beside. The answer to the commit may be lost: the coordinator asks then, as recovery does, and tells
its caller. What is claimed of the protocol is worth as much as the faults that the same exploration
finds in its neighbours: `FAULTY`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest

OPEN, COMMITTED, ROLLED_BACK = "open", "committed", "rolled back"
PREPARED = "prepared"
STOPPED = -1
PARTICIPANTS = (0, 1)
RECOVERERS = (0, 0, 1, 1)
"""For each recoverer, the participant that it looks after."""


@dataclass(frozen=True)
class Protocol:
    """What is done, and the neighbours of it that are not.

    Attributes:
        inserts_first: The decider inserts the row before anybody prepares; else after.
        decider_inserts: It inserts at all.
        recovery_inserts: Recovery inserts the key, which waits for the decider's open transaction;
            else it only reads.
        asks_after_reading: The forgetter asks the participants once it has read the row; else it
            had asked them before.
        forgets_blindly: The forgetter deletes committed rows by age or by range: it asks nobody.
        proves_undoing: A coordinator that finds no row tells that all is undone only if it has
            rolled a branch back itself; else the row may have been forgotten.
    """

    inserts_first: bool = True
    decider_inserts: bool = True
    recovery_inserts: bool = True
    asks_after_reading: bool = True
    forgets_blindly: bool = False
    proves_undoing: bool = True

    @property
    def steps(self) -> tuple[str, ...]:
        """What the coordinator does, one after the other."""
        prepare, insert = ("prepare 0", "prepare 1"), ("insert",) * self.decider_inserts
        begin = (*insert, *prepare) if self.inserts_first else (*prepare, *insert)
        return (*begin, "commit", "commit 0", "commit 1", "forget")


class State(NamedTuple):
    """Everything that there is.

    Attributes:
        step: The coordinator's next one, or STOPPED.
        decider: Its transaction.
        inserted: The row is in that transaction.
        row: Visible to others: COMMITTED, ROLLED_BACK (recovery's), or None.
        branches: By participant: None, PREPARED, COMMITTED or ROLLED_BACK.
        recoverers: What each has decided to do, or None.
        forgetter: Whom it has asked so far, and whether it has seen the committed row.
        asking: What a coordinator does next that has lost the answer to its commit, or "".
        undone: It has rolled a branch back since.
        told: What its caller was told then, or None.
    """

    step: int = 0
    decider: str = OPEN
    inserted: bool = False
    row: str | None = None
    branches: tuple[str | None, ...] = (None, None)
    recoverers: tuple[str | None, ...] = (None,) * len(RECOVERERS)
    forgetter: tuple[int, bool] = (0, False)
    asking: str = ""
    undone: bool = False
    told: str | None = None


Step = tuple[str, State]


def put(values: tuple[str | None, ...], place: int, value: str | None) -> tuple[str | None, ...]:
    return (*values[:place], value, *values[place + 1 :])


def coordinator(protocol: Protocol, state: State) -> Iterator[Step]:
    if state.step in (STOPPED, len(protocol.steps)):
        return
    yield "the coordinator stops for ever", state._replace(step=STOPPED)
    if state.asking:
        yield asking(protocol, state)
        return
    name = protocol.steps[state.step]
    after = state._replace(step=state.step + 1)
    what, _, participant = name.partition(" ")
    if what == "insert":
        if state.decider != OPEN or state.row is not None:
            yield "insert fails", state._replace(step=STOPPED, decider=ROLLED_BACK)
        else:
            yield name, after._replace(inserted=True)
    elif what == "prepare":  # it does not know what became of the decider's transaction
        yield name, after._replace(branches=put(state.branches, int(participant), PREPARED))
    elif name == "commit":
        if state.decider != OPEN:
            yield "commit fails", state._replace(step=STOPPED)
        else:
            row = COMMITTED if state.inserted else state.row
            committed = after._replace(decider=COMMITTED, row=row, inserted=False)
            yield name, committed
            yield "the answer to the commit is lost", committed._replace(asking="ask")
            yield "the commit is lost", after._replace(asking="ask")
    elif what == "commit":
        branches = state.branches
        if branches[int(participant)] == PREPARED:
            branches = put(branches, int(participant), COMMITTED)
        yield name, after._replace(branches=branches)
    else:
        yield name, after._replace(row=None)


def asking(protocol: Protocol, state: State) -> Step:
    """Return what a coordinator does that has lost the answer to its commit."""
    if state.asking == "ask":
        if state.inserted:
            return "it cannot know", state._replace(step=STOPPED, asking="")
        if state.row == COMMITTED:
            return "it finds the row", state._replace(asking="", told=COMMITTED)
        return "it inserts the row", state._replace(row=ROLLED_BACK, asking="undo 0")
    participant = int(state.asking.removeprefix("undo "))
    if state.branches[participant] == PREPARED:
        branches = put(state.branches, participant, ROLLED_BACK)
        state = state._replace(branches=branches, undone=True)
    if participant < len(PARTICIPANTS) - 1:
        return f"it undoes {participant}", state._replace(asking=f"undo {participant + 1}")
    told = ROLLED_BACK if state.undone or not protocol.proves_undoing else None
    return "it has undone all", state._replace(step=STOPPED, asking="", told=told)


def server(state: State) -> Iterator[Step]:
    if state.decider == OPEN:
        yield "the decider's transaction ends", state._replace(decider=ROLLED_BACK, inserted=False)


def recovery(protocol: Protocol, state: State) -> Iterator[Step]:
    for place, participant in enumerate(RECOVERERS):
        decided, branch = state.recoverers[place], state.branches[participant]
        if decided is not None:
            branches = state.branches
            if branch == PREPARED:
                branches = put(branches, participant, decided)
            recoverers = put(state.recoverers, place, None)
            yield (
                f"a recoverer of {participant} ends it: {decided}",
                state._replace(branches=branches, recoverers=recoverers),
            )
        elif branch == PREPARED:
            if protocol.recovery_inserts and state.inserted:
                continue  # it waits for the decider's transaction, and gives up
            fate = COMMITTED if state.row == COMMITTED else ROLLED_BACK
            row = state.row or (ROLLED_BACK if protocol.recovery_inserts else None)
            recoverers = put(state.recoverers, place, fate)
            yield (
                f"a recoverer of {participant} learns: {fate}",
                state._replace(row=row, recoverers=recoverers),
            )


def forgetting(protocol: Protocol, state: State) -> Iterator[Step]:
    if state.row == ROLLED_BACK:
        yield "recovery's row is deleted", state._replace(row=None)
    asked, has_read = state.forgetter
    if protocol.forgets_blindly:
        if state.row == COMMITTED:
            yield "the row is deleted for its age", state._replace(row=None)
        return
    may_read = asked == 0 if protocol.asks_after_reading else asked == len(PARTICIPANTS)
    if not has_read and may_read and state.row == COMMITTED:
        yield "the forgetter reads the row", state._replace(forgetter=(asked, True))
    may_ask = has_read or not protocol.asks_after_reading
    if may_ask and asked < len(PARTICIPANTS):
        if state.branches[asked] == PREPARED:
            yield f"{asked} holds a branch", state._replace(forgetter=(0, False))
        else:
            yield f"{asked} holds none", state._replace(forgetter=(asked + 1, has_read))
    if has_read and asked == len(PARTICIPANTS):
        yield "the row is deleted", state._replace(row=None, forgetter=(0, False))


def fault(state: State) -> str:
    """Say how the databases disagree for ever, or ""."""
    if state.decider == COMMITTED and ROLLED_BACK in state.branches:
        return "the decider committed, and a branch was rolled back"
    if state.decider == ROLLED_BACK and COMMITTED in state.branches:
        return "the decider was rolled back, and a branch was committed"
    if state.told is not None and state.told != state.decider:
        return f"the caller was told {state.told}, and the decider was {state.decider}"
    return ""


def explore(protocol: Protocol) -> tuple[int, dict[str, tuple[str, ...]]]:
    """Return how many states there are, and the way to each kind of fault."""
    start = State()
    seen = {start}
    left: list[tuple[State, tuple[str, ...]]] = [(start, ())]
    faults: dict[str, tuple[str, ...]] = {}
    while left:
        state, way = left.pop()
        if wrong := fault(state):
            faults.setdefault(wrong, way)
            continue
        for name, after in (
            *coordinator(protocol, state), *server(state), *recovery(protocol, state),
            *forgetting(protocol, state),
        ):  # fmt: skip
            if after not in seen:
                seen.add(after)
                left.append((after, (*way, name)))
    return len(seen), faults


FAULTY = {
    "the decider does not insert": Protocol(decider_inserts=False),
    "recovery does not insert": Protocol(recovery_inserts=False),
    "the decider inserts after the others have prepared": Protocol(inserts_first=False),
    "rows are forgotten by age or range": Protocol(forgets_blindly=True),
    "participants are asked before the row is read": Protocol(asks_after_reading=False),
    "a row that is not there was never there": Protocol(proves_undoing=False),
}


def test_the_protocol_never_disagrees() -> None:
    states, faults = explore(Protocol())
    assert states > 500
    assert faults == {}


@pytest.mark.parametrize("protocol", FAULTY.values(), ids=FAULTY)
def test_its_neighbours_do(protocol: Protocol) -> None:
    _, faults = explore(protocol)
    assert faults, "the exploration does not find the fault"


def test_whoever_stops_can_be_recovered() -> None:
    """From every state, recovery alone reaches one in which nothing is prepared."""
    protocol = Protocol()
    start = State()
    seen, left = {start}, [start]
    while left:
        state = left.pop()
        steps = (
            *coordinator(protocol, state), *server(state), *recovery(protocol, state),
            *forgetting(protocol, state),
        )  # fmt: skip
        for _, after in steps:
            if after not in seen:
                seen.add(after)
                left.append(after)
    for state in seen:
        if state.decider == OPEN:
            continue  # undecided: its session is to end first
        while PREPARED in state.branches or any(state.recoverers):
            (_, state), *_ = recovery(protocol, state)
        assert fault(state) == ""
