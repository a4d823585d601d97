"""The little that still differs between databases once the SQL is the same."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import Any

# SQLite has no type for times, so a program says once how it writes them.
sqlite3.register_adapter(datetime, lambda time: time.isoformat(" "))


def from_json(value: Any) -> Any:
    """Return a JSON column's value; some drivers decode it themselves, some hand out the text."""
    return json.loads(value) if isinstance(value, str) else value
