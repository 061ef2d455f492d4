-- Which events of groups are published, as messages of topics that begin with durable_notify. A row allows
-- a kind for a group, or for all groups (group_name is empty); set_operator_events() writes it.
CREATE TABLE durable_notify.operator_event (
    kind       text        NOT NULL,
    group_name text        NOT NULL DEFAULT '',
    set_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    set_by     text        NOT NULL DEFAULT SESSION_USER,
    PRIMARY KEY (kind, group_name),
    CONSTRAINT operator_event_kind CHECK (kind IN ('dead_letter', 'loss', 'group_failing', 'retention_alarm'))
);

-- What lasts: groups that fail, and retention alarms, of which the beginning has been published. By name: a
-- row must outlast the group, so that its end is published. group_name is empty if the archive is late.
CREATE TABLE durable_notify.operator_alarm (
    kind       text        NOT NULL,
    group_name text        NOT NULL,
    topic      text        NOT NULL,
    since      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (kind, group_name, topic)
);
