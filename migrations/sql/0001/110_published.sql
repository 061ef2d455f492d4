CREATE FUNCTION durable_notify.published() RETURNS trigger
LANGUAGE plpgsql AS $function$
DECLARE
    mirror pg_catalog.text;
    rung pg_catalog.text;
    mine pg_catalog.text;
BEGIN
    -- Wake who waits for a message that was published: one ring a topic and transaction. Refuse a
    -- row that cannot be a message.
    --
    -- One expression for what nearly every row is: right, and nobody waits. It calls nothing that is
    -- not put in place of its call or built in: each statement more costs a publisher one percent
    -- of its rate (docs/performance.md). The last line is the look at the doorbells.
    -- Operators have their full names: this runs with the search_path of whoever inserts.
    IF NEW.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id()
       AND pg_catalog.octet_length(NEW.topic) OPERATOR(pg_catalog.>=) 1
       AND pg_catalog.octet_length(NEW.topic) OPERATOR(pg_catalog.<=) 255
       AND NEW.topic OPERATOR(pg_catalog.!~) E'[\\u0001-\\u0020\\u007f-\\u00a0*>]'
       AND (NEW.key IS NOT NULL OR NOT durable_notify.needs_key(NEW.topic))
       AND (NEW.key IS NULL OR pg_catalog.octet_length(NEW.key) OPERATOR(pg_catalog.>=) 1
                               AND pg_catalog.octet_length(NEW.key) OPERATOR(pg_catalog.<=) 1024
                               AND NEW.key OPERATOR(pg_catalog.!~) E'[\\u0001-\\u001f\\u007f-\\u009f]')
       AND (NEW.payload IS NULL) OPERATOR(pg_catalog.<>) (NEW.data IS NULL)
       AND (NEW.headers IS NULL OR pg_catalog.jsonb_typeof(NEW.headers) OPERATOR(pg_catalog.=) 'object')
       AND durable_notify.mirror_of(NEW.topic) IS NULL
       AND (durable_notify.wakeups(NEW.topic) OPERATOR(pg_catalog.=) 'never'
            OR durable_notify.wakeups(NEW.topic) OPERATOR(pg_catalog.=) 'when_waiting'
               AND durable_notify.nobody_waits(NEW.topic) AND durable_notify.nobody_waits(''))
    THEN
        RETURN NULL;
    END IF;
    PERFORM durable_notify.refuse(NEW);
    -- Looked up once: it may change in between. What is carried over was mirrored where it was published.
    mirror := durable_notify.mirror_of(NEW.topic);
    IF mirror IS NOT NULL AND NEW.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() THEN
        PERFORM durable_notify.notify_raw(mirror, NEW);
    END IF;
    -- What was rung for a topic in this transaction is heard once it commits: all of its messages are
    -- there then. Who has armed since finds this transaction under way. Rolled back to a savepoint,
    -- the setting is what it was before, as the notifications are.
    rung := COALESCE(pg_catalog.current_setting('durable_notify.rung', true), '');
    mine := pg_catalog.format(' %s ', NEW.topic);
    IF pg_catalog.strpos(rung, mine) OPERATOR(pg_catalog.>) 0 THEN
        RETURN NULL;
    END IF;
    PERFORM durable_notify.wake(NEW.topic, pg_catalog.format('%s', NEW.id));
    PERFORM pg_catalog.set_config('durable_notify.rung', pg_catalog.right(pg_catalog.concat(rung, mine), 4000), true);
    RETURN NULL;
END
$function$;

CREATE TRIGGER published AFTER INSERT ON durable_notify.outbox
    FOR EACH ROW EXECUTE FUNCTION durable_notify.published();
-- Of each leaf it is a copy, which is as the log's was when the leaf was made.
-- Trap: session_replication_role = replica silences a trigger that is not ENABLE ALWAYS.
ALTER TABLE durable_notify.outbox ENABLE ALWAYS TRIGGER published;
