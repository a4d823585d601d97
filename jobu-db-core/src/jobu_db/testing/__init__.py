"""Tools for testing programs and backends that use jobu-db. Nothing else imports this package."""
