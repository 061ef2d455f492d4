CREATE FUNCTION durable_notify._outbox_after_insert() RETURNS trigger
LANGUAGE plpgsql AS $function$
DECLARE
    mirror pg_catalog.text;
    rung_topics pg_catalog.text;
    marker pg_catalog.text;
BEGIN
    -- Wake the consumers that wait for a message that was published: one ring a topic and transaction.
    -- Refuse a row that cannot be a message.
    --
    -- One expression covers nearly every row: it is valid, and no consumer waits. The expression calls
    -- only what is inlined or built in, and as few functions as possible: PL/pgSQL sets them up again
    -- in each transaction (docs/performance.md). Its last line looks at the doorbells. While a consumer
    -- sleeps by a pattern, another expression looks whether the pattern can match.
    -- Operators have their full names: this runs with the search_path of the publisher.
    IF durable_notify._is_message(NEW.xid, NEW.topic, NEW.key, NEW.payload, NEW.data, NEW.headers)
       AND durable_notify.mirror_of(NEW.topic) IS NULL
       AND (durable_notify.notify_policy(NEW.topic) OPERATOR(pg_catalog.=) 'never'
            OR durable_notify.notify_policy(NEW.topic) OPERATOR(pg_catalog.=) 'when_waiting'
               AND durable_notify._no_waiter(NEW.topic) AND durable_notify._no_pattern_waiter())
    THEN
        RETURN NULL;
    ELSIF durable_notify._is_message(NEW.xid, NEW.topic, NEW.key, NEW.payload, NEW.data, NEW.headers) IS NOT TRUE THEN
        PERFORM durable_notify._validate_message(NEW);
    ELSIF durable_notify.mirror_of(NEW.topic) IS NULL
          AND durable_notify.notify_policy(NEW.topic) OPERATOR(pg_catalog.=) 'when_waiting'
          AND durable_notify._no_waiter(NEW.topic) AND durable_notify._no_waiter('')
          AND durable_notify._no_waiter(durable_notify._family(NEW.topic)) THEN
        RETURN NULL;
    END IF;
    -- Looked up once: it may change in between. A row that is carried over was mirrored where it was
    -- published.
    mirror := durable_notify.mirror_of(NEW.topic);
    IF mirror IS NOT NULL AND NEW.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() THEN
        PERFORM durable_notify._notify_payload(mirror, NEW);
    END IF;
    -- A ring for a topic in this transaction is heard once it commits: all of its messages exist then.
    -- A consumer that has armed since finds this transaction in progress. After a rollback to a
    -- savepoint, the setting is what it was before, and so are the notifications.
    rung_topics := COALESCE(pg_catalog.current_setting('durable_notify.rung', true), '');
    marker := pg_catalog.concat(' ', NEW.topic, ' ');
    IF pg_catalog.strpos(rung_topics, marker) OPERATOR(pg_catalog.>) 0 THEN
        RETURN NULL;
    END IF;
    PERFORM durable_notify._notify_waiters(NEW.topic, pg_catalog.format('%s', NEW.id));
    PERFORM pg_catalog.set_config('durable_notify.rung', pg_catalog.right(pg_catalog.concat(rung_topics, marker), 4000), true);
    RETURN NULL;
END
$function$;

CREATE FUNCTION durable_notify._is_message(
    xid xid8, topic text, key text, payload jsonb, data bytea, headers jsonb
) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Whether a row can be a message, of this transaction. PostgreSQL inlines it. It may be false for a
    -- row that is one: _validate_message() decides.
    SELECT xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id()
       AND topic OPERATOR(pg_catalog.~) E'^[^\\u0001-\\u0020\\u007f-\\u00a0*>]+$'
       AND pg_catalog.octet_length(topic) OPERATOR(pg_catalog.<=) 255
       AND (key IS NOT NULL OR NOT durable_notify._key_required(topic))
       AND (key IS NULL OR key OPERATOR(pg_catalog.~) E'^[^\\u0001-\\u001f\\u007f-\\u009f]+$'
                           AND pg_catalog.octet_length(key) OPERATOR(pg_catalog.<=) 1024)
       AND CASE WHEN payload IS NULL THEN data IS NOT NULL ELSE data IS NULL END  -- no call of a function
       AND (headers IS NULL OR headers OPERATOR(pg_catalog.@>) '{}')
$function$;

CREATE FUNCTION durable_notify._validate_message(message durable_notify.outbox) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    broken text;
    foreign_xid boolean;
BEGIN
    -- Raise an error for an invalid row of the outbox. _is_message() has the same conditions in one
    -- expression.
    --
    -- A row that claims to belong to another transaction could be skipped by every group. Logical
    -- replication, which carries rows over as they are, runs with session_replication_role = replica.
    foreign_xid := message.xid <> pg_catalog.pg_current_xact_id();
    IF foreign_xid AND pg_catalog.current_setting('session_replication_role') = 'replica' THEN
        PERFORM durable_notify._mark_replicated(message.id);
    ELSIF foreign_xid THEN
        RAISE EXCEPTION 'durable_notify.outbox.xid is % but this transaction is %',
            message.xid, pg_catalog.pg_current_xact_id()
            USING ERRCODE = '22023',
                  HINT = 'Leave xid and id out of the INSERT; their defaults are the only right values.';
    END IF;
    broken := CASE
        WHEN pg_catalog.octet_length(message.topic) NOT BETWEEN 1 AND 255
             OR durable_notify._has_controls(message.topic, true) OR message.topic ~ '[*>]' THEN 'outbox_topic_is_a_name'
        WHEN pg_catalog.octet_length(message.key) NOT BETWEEN 1 AND 1024
             OR durable_notify._has_controls(message.key, false) THEN 'outbox_key_is_1_to_1024_bytes_of_text'
        WHEN (message.payload IS NULL) = (message.data IS NULL) THEN 'outbox_either_payload_or_data'
        WHEN pg_catalog.jsonb_typeof(message.headers) <> 'object' THEN 'outbox_headers_are_an_object'
        WHEN message.key IS NULL AND durable_notify._key_required(message.topic) AND NOT foreign_xid THEN 'outbox_key_in_a_compacted_topic'
    END;
    IF broken IS NOT NULL THEN
        RAISE EXCEPTION 'new row for relation "outbox" violates "%"', broken
            USING ERRCODE = 'check_violation', SCHEMA = 'durable_notify', TABLE = 'outbox', CONSTRAINT = broken,
                  HINT = 'Nothing was published. The constraint''s name says what is required.';
    END IF;
END
$function$;

CALL durable_notify._grantable('_is_message', '{insert}');
CALL durable_notify._grantable('_validate_message', '{insert}');
