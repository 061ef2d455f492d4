CREATE FUNCTION durable_notify.refuse(message durable_notify.outbox) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    broken text;
    foreign_xid boolean;
BEGIN
    -- Raise what is wrong with a row of the outbox, if anything is. published() has the same
    -- conditions in one expression.
    --
    -- A row that claims to belong to another transaction could be skipped by every group. Logical
    -- replication, which carries rows over as they are, runs with session_replication_role = replica.
    foreign_xid := message.xid <> pg_catalog.pg_current_xact_id();
    IF foreign_xid AND pg_catalog.current_setting('session_replication_role') = 'replica' THEN
        PERFORM durable_notify.carried_over(message.id);
    ELSIF foreign_xid THEN
        RAISE EXCEPTION 'durable_notify.outbox.xid is % but this transaction is %',
            message.xid, pg_catalog.pg_current_xact_id()
            USING ERRCODE = '22023',
                  HINT = 'Leave xid and id out of the INSERT; their defaults are the only right values.';
    END IF;
    broken := CASE
        WHEN pg_catalog.octet_length(message.topic) NOT BETWEEN 1 AND 255
             OR durable_notify.has_controls(message.topic, true) OR message.topic ~ '[*>]' THEN 'outbox_topic_is_a_name'
        WHEN pg_catalog.octet_length(message.key) NOT BETWEEN 1 AND 1024
             OR durable_notify.has_controls(message.key, false) THEN 'outbox_key_is_1_to_1024_bytes_of_text'
        WHEN (message.payload IS NULL) = (message.data IS NULL) THEN 'outbox_either_payload_or_data'
        WHEN pg_catalog.jsonb_typeof(message.headers) <> 'object' THEN 'outbox_headers_are_an_object'
        WHEN message.key IS NULL AND durable_notify.needs_key(message.topic) AND NOT foreign_xid THEN 'outbox_key_in_a_compacted_topic'
    END;
    IF broken IS NOT NULL THEN
        RAISE EXCEPTION 'new row for relation "outbox" violates "%"', broken
            USING ERRCODE = 'check_violation', SCHEMA = 'durable_notify', TABLE = 'outbox', CONSTRAINT = broken,
                  HINT = 'Nothing was published. The constraint''s name says what a message must be.';
    END IF;
END
$function$;
