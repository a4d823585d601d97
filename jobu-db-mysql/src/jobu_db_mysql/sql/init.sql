-- The schema of jobu: jobs and their executions.
--
-- Runs any number of times. Keys stand in the tables: MySQL has no CREATE INDEX IF NOT EXISTS.
-- Times are stored as they are given, whatever the time zone of the session; write UTC.

CREATE TABLE IF NOT EXISTS cron_jobs (
    id              BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name            VARCHAR(255) NOT NULL,
    description     TEXT,
    cron_expression VARCHAR(255) NOT NULL,
    handler_name    VARCHAR(255) NOT NULL,
    handler_params  JSON,
    is_enabled      BOOLEAN      NOT NULL DEFAULT TRUE,
    allow_overlap   BOOLEAN      NOT NULL DEFAULT TRUE,
    max_retry       INTEGER      NOT NULL DEFAULT 3,
    timeout_seconds INTEGER      NOT NULL DEFAULT 3600,
    created_at      DATETIME(6)  NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    updated_at      DATETIME(6)  NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
                                 ON UPDATE CURRENT_TIMESTAMP(6),
    UNIQUE KEY cron_jobs_name (name),
    KEY cron_jobs_is_enabled (is_enabled)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

CREATE TABLE IF NOT EXISTS job_executions (
    id             BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    job_id         BIGINT,
    handler_name   VARCHAR(255) NOT NULL,
    scheduled_time DATETIME(6)  NOT NULL,
    status         VARCHAR(32)  NOT NULL DEFAULT 'PENDING',
    params         JSON,
    param_source   VARCHAR(32)  NOT NULL DEFAULT 'cron',
    started_at     DATETIME(6),
    finished_at    DATETIME(6),
    retry_count    INTEGER      NOT NULL DEFAULT 0,
    error_message  TEXT,
    result         JSON,
    created_at     DATETIME(6)  NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    UNIQUE KEY job_executions_job_id_scheduled_time (job_id, scheduled_time),
    KEY job_executions_status_scheduled_time (status, scheduled_time),
    CONSTRAINT job_executions_job FOREIGN KEY (job_id) REFERENCES cron_jobs (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
