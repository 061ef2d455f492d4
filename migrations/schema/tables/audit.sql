-- Changes of groups by hand: who made them, when and why.
CREATE TABLE durable_notify.audit (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    who         text        NOT NULL DEFAULT SESSION_USER,
    acting_as   text        NOT NULL DEFAULT CURRENT_USER,
    application text        DEFAULT pg_catalog.current_setting('application_name', true),
    action      text        NOT NULL,
    group_name  text        NOT NULL,
    topic       text,
    messages    bigint,
    why         text,
    details     jsonb
);
CREATE INDEX audit_group_name ON durable_notify.audit (group_name, id);
