CREATE TABLE IF NOT EXISTS entries (
    order_key  TEXT NOT NULL,
    event      TEXT NOT NULL CHECK (event IN ('placed', 'shipped')),
    PRIMARY KEY (order_key, event)    -- writing it again changes nothing
) WITHOUT ROWID;
