"""Tools for testing programs and backends that use jobu-db. Nothing else imports this package.

For programs:
`fixtures`      pytest fixtures: the databases of a configuration
`fake`          a backend in memory, on a `fake_server`, with `faults` on order
`aiosql_rows`   rows of an aiosql query, whatever the version of aiosql

For backends:
`conformance`   the suite that every backend passes
`plugin`        pytest fixtures for real servers, which `servers` finds, starts or installs
`proxy`         counts round trips, and breaks the network on demand
`cancellation`  a scenario, cancelled at each of its awaits
`fuzzing`       hostile SQL and values
"""
