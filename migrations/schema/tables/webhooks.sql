-- Endpoints of webhooks: each is a group, whose messages a relay sends to the URL.
--   options:       see create_webhook()
--   secrets:       where its secrets are: env:NAME or file:PATH of the relay, never a secret itself. None:
--                  they are derived from the relay's key, salt and secret_version; the version before that
--                  is valid until old_secret_until
--   failing_since: when it began to fail, and failure: how it failed last
CREATE TABLE durable_notify.webhook (
    group_id         integer     PRIMARY KEY REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    url              text        NOT NULL,
    topics           text[]      NOT NULL,
    options          jsonb       NOT NULL DEFAULT '{}',
    secrets          text[]      NOT NULL DEFAULT '{}',
    salt             uuid        NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    secret_version   integer     NOT NULL DEFAULT 1,
    old_secret_until timestamptz,
    failing_since    timestamptz,
    failure          text,
    created_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    changed_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
