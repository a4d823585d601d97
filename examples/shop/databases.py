"""The two databases. `${NAME}` is read from the environment when the service starts."""

from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

POOL = {"timeout": "${SHOP_PATIENCE:-30}"}
"""For how many seconds a request waits for a connection, and for its turn to write."""

CONFIG: dict[str, Any] = {
    "databases": {
        "orders": {
            "type": "postgres",
            "url": "${SHOP_ORDERS_URL:-postgresql://jobu:jobu_dev@localhost/jobu}",
            "init_sql": str(HERE / "orders.sql"),
            "pool": POOL,
        },
        "audit": {
            "type": "sqlite",
            "path": "${SHOP_AUDIT_PATH:-data/audit.db}",
            "init_sql": str(HERE / "audit.sql"),
            "pool": POOL,
        },
    }
}
