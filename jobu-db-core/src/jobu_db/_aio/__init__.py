"""What the core does by hand with asyncio, because the library's own way costs more or loses
something: one package, so that every reliance on asyncio's inner workings stands in one place.

`future_proxy`  what a task waits for while a coroutine inside it is stepped by hand
`timeouts`      a limit in time that cancels what is waited for, not the task
`shield`        a commit or rollback that goes on although its caller is cancelled
`inline_task`   a coroutine that runs from callbacks, without a task
`generators`    which async generator encloses the running code, and whether it is suspended
`callsite`      which task asked for something, and at which line

It knows nothing of databases: `pool` and `transaction` build on it.
"""
