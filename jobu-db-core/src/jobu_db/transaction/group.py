"""Several transactions that end together: checked, committed one after another, or all undone.

A block may have several to end: a unit of work its members, and any block what is *enlisted* in
it: transactions of units that were left inside it.

Invariant: what a unit did over databases that end together (they have one *home*) is kept as a
whole or undone as a whole, whichever block around it fails. So it hangs on the innermost block
that would undo a part of it:

- A savepoint is undone with the block of the level around it; a level whose own block is left is
  undone with the block in which it is enlisted; and what ends with a home, with its blocks too.
- A block that is left normally passes all of it on, its own levels included, to the innermost of
  those blocks. A savepoint that is undone with that block anyway is released into it; the others
  stay open, enlisted there, together with the root transactions that began inside.
- One that is left by an exception undoes all of it.
- So only blocks that are still entered have something enlisted, at most one savepoint of each
  database, and what is enlisted in the outermost block is all that its end has to end.

The order of a commit: every transaction is checked; then the outer ones commit in the order given,
then those that were enlisted; then the callbacks of what is committed run.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobu_db._aio.shield import Finished
from jobu_db.errors import PartialCommitError, TransactionError
from jobu_db.transaction import ambient
from jobu_db.transaction.outcome import (
    COMMITTED,
    LEFT_FIRST,
    ROLLED_BACK,
    UNKNOWN,
    conclude,
    roll_back,
    with_enlisted,
)
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.savepoint import RELEASED, Savepoint
from jobu_db.transaction.session import Block

Member = RootTransaction | Savepoint


def enter_block(members: Sequence[Member]) -> None:
    """Make one block of transactions that were just begun, and note which blocks are around it.

    What begins here ends with the home of what was open before; if there are several, with that of
    the transaction which was opened first.
    """
    block = members[0].level.block
    for member in members:
        member.level.block = block
    for member in members:
        if isinstance(member, Savepoint):
            _move_in(block.around, member.home, _block_around(member))
    # An enlisted database has no block of its own: those of its home undo its units, too.
    for home in block.around:
        _move_in(block.around, home, _innermost_block(home, block))
    first = min(block.around, key=lambda home: home.serial) if block.around else members[0].home
    for member in members:
        if isinstance(member, RootTransaction):
            member.home = first


def _block_around(savepoint: Savepoint) -> Block:
    """Return the block with which a savepoint is undone, whatever becomes of its own."""
    assert savepoint.level.parent is not None
    return savepoint.level.parent.block


def _innermost_block(home: RootTransaction, own: Block) -> Block:
    """Return the innermost block of a home where this is called, but for one's own."""
    level = ambient.current(home.pool)
    while level is not None and (level.root is not home or level.closed):
        level = level.outer
    block = home.level.block if level is None else level.block
    assert isinstance(block, Block)
    return home.level.block if block is own else block


def _move_in(around: dict[RootTransaction, Block], home: RootTransaction, block: Block) -> None:
    if home not in around or around[home].serial < block.serial:
        around[home] = block


async def leave_block(members: Sequence[Member]) -> None:
    """End the block of these members, which was left normally, with all that is enlisted in it.

    Raises:
        PartialCommitError: One failed to commit after another one had committed.
        DatabaseError: All are rolled back.
    """
    if members[0].level.block.around:
        await _hand_on(members)
    else:
        await _end_together(members)


async def _end_together(members: Sequence[Member]) -> None:
    try:
        everything = await prepare(members)
    except BaseException as refusal:
        await roll_back(members, refusal)
        raise
    await conclude(everything, await _commit_all(everything))


async def prepare(members: Sequence[Member]) -> list[RootTransaction]:
    """Check root transactions with those that are enlisted in their block, which is left."""
    everything = [one for one in with_enlisted(members) if isinstance(one, RootTransaction)]
    for one in everything:
        one.session.drop_kept()
        for reader in one.session.readers:
            reader.abandoned = True  # the block is left: nobody reads on
        await one.prepare()
    for one in everything:
        # From this last look on nothing awaits until all are closed: no other task can spoil one
        # that was found sound.
        one.refuse_if_spoiled()
    for one in everything:
        one.level.closed = True
    return everything


async def _hand_on(members: Sequence[Member]) -> None:
    """Keep the work as part of the blocks around."""
    block = members[0].level.block
    everything = with_enlisted(members)
    around = dict(block.around)
    try:
        for member in members:
            await member.prepare()
        for one in everything:
            one.refuse_if_spoiled()
            # What is enlisted here may be a part of a block that is newer than those around us.
            if isinstance(one, Savepoint):
                _move_in(around, one.home, _block_around(one))
        if any(other.left for other in around.values()):  # by another task: it would never end
            raise TransactionError(f"rolled back: {LEFT_FIRST}", database=members[0].pool.name)
    except BaseException as refusal:
        await roll_back(members, refusal)
        raise
    kept = [one for one in everything if _stays_open(one, around[one.home])]
    ended = [one for one in everything if one not in kept]
    # First, so that a block that another task leaves concurrently ends all of it or none.
    block.enlisted.clear()
    for one in kept:
        one.enlist(around[one.home])
    finished = await _commit_all(sorted(ended, key=lambda one: -one.level.depth))
    if finished.error is not None:
        still_open = [one for one in kept if not one.level.closed]
        for one in still_open:
            one.level.block.enlisted.remove(one)
            one.level.block = block
        await roll_back(still_open, finished.error, hurry=finished.cancelled is not None)
    await conclude(ended, finished)


def _stays_open(member: Member, around: Block) -> bool:
    """Say whether a member of a block that is left has to wait for the end of the block around."""
    if member.level.readonly:
        return False  # it has written nothing that could be undone
    return isinstance(member, RootTransaction) or _block_around(member) is not around


async def _commit_all(members: Sequence[Member]) -> Finished:
    """Commit one after another; after a failure, roll back those that are left."""
    # A savepoint that is kept can still be undone by the block around it; nothing else can.
    ordered = sorted(members, key=lambda member: isinstance(member, Savepoint))
    cancelled = None
    failed: tuple[Member, BaseException] | None = None
    for member in ordered:
        end = member.commit if failed is None else member.rollback
        finished = await end(hurry=cancelled is not None)
        cancelled = cancelled or finished.cancelled
        if failed is None and finished.error is not None:
            failed = member, finished.error
    return Finished(None if failed is None else _disagreement(members, *failed), cancelled)


def _disagreement(
    members: Sequence[Member], failed: Member, failure: BaseException
) -> BaseException:
    """Tell who committed and who did not; the failure itself if nobody disagrees."""

    def names(*outcomes: str) -> list[str]:
        return [one.pool.name for one in members if one.outcome in outcomes]

    rolled_back = names(ROLLED_BACK)
    if len(rolled_back) == len(members):
        return failure
    name = failed.pool.name
    error = PartialCommitError(
        committed=names(COMMITTED, RELEASED),
        failed=[name] if name in rolled_back else [],
        rolled_back=[other for other in rolled_back if other != name],
        unknown=names(UNKNOWN),
    )
    error.__cause__ = failure
    return error
