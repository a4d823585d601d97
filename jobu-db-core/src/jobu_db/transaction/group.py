"""Several transactions that end together: checked, committed one after another, or all undone.

What was enlisted within a level ends with it. So even a plain block may have several to end: its
own, and those that units of work inside it began (`unit_of_work`).

The order of a commit: every transaction is checked; then the outer ones commit in the order given,
savepoints last, then those that were enlisted; then the callbacks of what is committed run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobu_db._aio.shield import Finished
from jobu_db.errors import PartialCommitError
from jobu_db.transaction.outcome import COMMITTED, ROLLED_BACK, UNKNOWN, conclude, roll_back
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.savepoint import RELEASED, Savepoint

Member = RootTransaction | Savepoint


def with_enlisted(members: Iterable[Member]) -> list[Member]:
    """Return transactions and, behind them, the root transactions enlisted within them."""
    everything = list(members)
    for one in everything:  # grows meanwhile
        everything += [
            enlisted for enlisted in one.level.enlisted if isinstance(enlisted, RootTransaction)
        ]
    return everything


async def end_together(members: Sequence[Member]) -> None:
    """Commit transactions with all that is enlisted within them.

    Raises:
        PartialCommitError: One failed to commit after another one had committed.
        DatabaseError: All are rolled back.
    """
    try:
        everything = await prepare(members)
    except BaseException as refusal:
        await roll_back(members, refusal)
        raise
    await conclude(everything, await commit_all(everything))


async def prepare(members: Sequence[Member]) -> list[Member]:
    """Check transactions with all that is enlisted within them, and let nothing more in."""
    prepared: list[Member] = []
    while left := [one for one in with_enlisted(members) if one not in prepared]:
        for one in left:  # another task may enlist one more while these are checked
            one.session.drop_kept()
            for reader in one.session.readers:
                reader.abandoned = True  # the block is left: nobody reads on
            await one.prepare()
            prepared.append(one)
    for one in prepared:
        one.refuse_if_spoiled()
    for one in prepared:
        one.level.closed = True
    return prepared


async def commit_all(members: Sequence[Member]) -> Finished:
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
