"""PostgreSQL for jobu-db, through asyncpg."""

from jobu_db_postgres.connection import PostgresDatabase

__version__ = "0.1.0"

__all__ = ["PostgresDatabase", "__version__"]
