-- The tables of jobu for SQLite 3.38 and newer. Can be run again at any time.
--
-- Times are UTC as text, "YYYY-MM-DD HH:MM:SS.SSS", which sorts and which SQLite's date functions
-- read. JSON is text, checked on writing: SQLite has no type for it.

CREATE TABLE IF NOT EXISTS cron_jobs (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,  -- an id is never given out twice
    name            TEXT    NOT NULL UNIQUE,
    description     TEXT,
    cron_expression TEXT    NOT NULL,
    handler_name    TEXT    NOT NULL,
    handler_params  TEXT    CHECK (handler_params IS NULL OR json_valid(handler_params)),
    is_enabled      INTEGER NOT NULL DEFAULT 1 CHECK (is_enabled IN (0, 1)),
    allow_overlap   INTEGER NOT NULL DEFAULT 1 CHECK (allow_overlap IN (0, 1)),
    max_retry       INTEGER NOT NULL DEFAULT 3,
    timeout_seconds INTEGER NOT NULL DEFAULT 3600,
    created_at      TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    updated_at      TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);

-- Unless the statement itself sets updated_at, as a restored backup would.
CREATE TRIGGER IF NOT EXISTS cron_jobs_touch
AFTER UPDATE ON cron_jobs
WHEN NEW.updated_at IS OLD.updated_at
BEGIN
    UPDATE cron_jobs SET updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE id = NEW.id;
END;

CREATE TABLE IF NOT EXISTS job_executions (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id         INTEGER REFERENCES cron_jobs (id) ON DELETE CASCADE,
    handler_name   TEXT    NOT NULL,
    scheduled_time TEXT    NOT NULL,
    status         TEXT    NOT NULL DEFAULT 'PENDING',
    params         TEXT    CHECK (params IS NULL OR json_valid(params)),
    param_source   TEXT    NOT NULL DEFAULT 'cron',
    started_at     TEXT,
    finished_at    TEXT,
    retry_count    INTEGER NOT NULL DEFAULT 0,
    error_message  TEXT,
    result         TEXT    CHECK (result IS NULL OR json_valid(result)),
    created_at     TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    UNIQUE (job_id, scheduled_time)  -- also finds the executions of a job
);

CREATE INDEX IF NOT EXISTS cron_jobs_is_enabled ON cron_jobs (is_enabled);

-- Finds what is due: WHERE status = 'PENDING' AND scheduled_time <= ... ORDER BY scheduled_time.
CREATE INDEX IF NOT EXISTS job_executions_status_scheduled_time
    ON job_executions (status, scheduled_time);
