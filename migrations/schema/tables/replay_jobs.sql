-- Messages that a group gets again, beside what is new; advance_replays() delivers them step by step.
--   s0, h0, s1, p: the group's position at the start: what had been delivered by then is replayed,
--                  the rest the group gets anyhow
--   last_id:       how far the replay has come; total and done count the messages that fit
CREATE TABLE durable_notify.replay_job (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id integer     NOT NULL REFERENCES durable_notify.subscription ON DELETE CASCADE,
    state           text        NOT NULL DEFAULT 'running',
    s0              pg_snapshot NOT NULL,
    h0              bigint      NOT NULL,
    s1              pg_snapshot,
    p               bigint      NOT NULL,
    after_id        bigint      NOT NULL,
    upto_id         bigint      NOT NULL,
    since           timestamptz,
    until           timestamptz,
    keys            text[],
    headers         jsonb,
    payload         jsonb,
    path            jsonpath,
    rate_limit      double precision,
    total           bigint      NOT NULL,
    done            bigint      NOT NULL DEFAULT 0,
    last_id         bigint      NOT NULL,
    stepped_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    created_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    created_by      text        NOT NULL DEFAULT SESSION_USER,
    why             text,
    ended_at        timestamptz,
    CONSTRAINT replay_job_state CHECK (state IN ('running', 'done', 'cancelled')),
    CONSTRAINT replay_job_rate_limit_is_positive CHECK (rate_limit > 0)
);
CREATE UNIQUE INDEX replay_job_running ON durable_notify.replay_job (subscription_id) WHERE state = 'running';
