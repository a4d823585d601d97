"""MySQL and MariaDB for jobu-db."""

from __future__ import annotations

from jobu_db_mysql.connection import MySQLDatabase

__all__ = ["MySQLDatabase", "__version__"]

__version__ = "0.1.0"
