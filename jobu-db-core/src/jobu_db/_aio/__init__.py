"""What the core does by hand with asyncio, because the library's own way costs more or loses
something: one package, so that every reliance on asyncio's inner workings stands in one place.

`stepper`      a coroutine driven by hand, from one wait to the next: what the next three share
`timeouts`     a limit in time that cancels what is waited for, not the task
`shield`       a commit or rollback that goes on although its caller is cancelled
`inline_task`  a coroutine that runs from callbacks, without a task
`generators`   which async generator encloses the running code, and whether it is suspended
`callsite`     which task asked for something, and at which line

Each inner working of asyncio that is relied on has a test in `tests/aio/test_canaries.py`, which
runs on every Python and on uvloop. There are no other ways beside them: where one of them changes,
that test says which.

It knows nothing of databases: `pool` and `transaction` build on it.
"""
