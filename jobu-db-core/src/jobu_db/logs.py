"""Where messages go: the logger `jobu_db`, with a child for each database, `jobu_db.NAME`.

So one database can be made silent, or talk, by itself:
`logging.getLogger("jobu_db.orders").setLevel(logging.ERROR)`.
"""

from __future__ import annotations

import logging


def logger_of(database: str) -> logging.Logger:
    """Return the logger of one database."""
    return logging.getLogger(f"jobu_db.{database}")
