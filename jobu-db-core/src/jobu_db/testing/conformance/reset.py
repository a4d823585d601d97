"""What one holder of a connection set never reaches the next."""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from typing import Any

from jobu_db.errors import ProgrammingError
from jobu_db.testing.conformance.backend import Backend, insert, nothing_held, with_items


class ResetConformance:
    async def test_a_setting_ends_with_its_holder(self, backend: Backend) -> None:
        db = await backend.open(max_size=1)
        assert backend.traces, "Backend.traces names no setting that a holder could leave behind"
        for change, look in backend.traces.items():
            async with db.pool.connection() as lease:
                before = await _seen(db, lease.connection, look)
                await backend.raw(lease.connection, change)
                assert await _seen(db, lease.connection, look) != before, change
            async with db.pool.connection() as lease:
                assert await _seen(db, lease.connection, look) == before, change
        await nothing_held(db)

    async def test_a_setting_ends_with_its_transaction_however_that_ends(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=1)
        cases = product(("commit", "rollback", "manual"), backend.traces.items())
        for number, (ending, (change, look)) in enumerate(cases):
            async with db.pool.connection() as lease:
                before = await _seen(db, lease.connection, look)
            try:
                async with db.transaction() as ctx:
                    await insert(ctx, number)
                    await backend.raw(ctx.connection, change)
                    if ending == "rollback":
                        raise KeyError
                    if ending == "manual":
                        await ctx.commit()
            except KeyError:
                assert ending == "rollback"
            async with db.pool.connection() as lease:
                assert await _seen(db, lease.connection, look) == before, (ending, change)
        await nothing_held(db)

    async def test_a_setting_made_by_a_statement_alone_ends_with_it(self, backend: Backend) -> None:
        db: Any = await backend.open(max_size=1)
        for change, look in backend.traces.items():
            async with db.pool.connection() as lease:
                before = await _seen(db, lease.connection, look)
            with suppress(ProgrammingError):  # a backend may say that it would have no effect
                await db.execute(change)
            async with db.pool.connection() as lease:
                assert await _seen(db, lease.connection, look) == before, change


async def _seen(db: Any, connection: Any, look: str) -> Any:
    return await db.driver.fetch_val(connection, look, None)
