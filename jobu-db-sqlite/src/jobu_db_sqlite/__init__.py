"""SQLite for jobu-db, through aiosqlite."""

from jobu_db_sqlite.connection import SQLiteDatabase

__version__ = "0.1.0"

__all__ = ["SQLiteDatabase", "__version__"]
