-- What a group's handlers have done once, by message: for effects outside the database.
CREATE TABLE durable_notify.processed_message (
    group_id   integer     NOT NULL REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    message_id bigint      NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (group_id, message_id)
);
CREATE INDEX processed_message_created_at ON durable_notify.processed_message USING brin (created_at);
