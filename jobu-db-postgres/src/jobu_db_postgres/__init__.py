"""PostgreSQL for jobu-db, through asyncpg."""

from jobu_db_postgres.connection import PostgresDatabase
from jobu_db_postgres.listening import Notification

__version__ = "0.1.0"

__all__ = ["Notification", "PostgresDatabase", "__version__"]
