CREATE TABLE IF NOT EXISTS orders (
    key        text        PRIMARY KEY,    -- chosen by the client, so that it can ask again
    item       text        NOT NULL,
    quantity   integer     NOT NULL CONSTRAINT some_but_not_too_many CHECK (quantity BETWEEN 1 AND 99),
    placed_at  timestamptz NOT NULL DEFAULT now(),
    shipped_at timestamptz
);
