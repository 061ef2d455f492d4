CREATE FUNCTION durable_notify.claim_alone(
    group_name text, topics text[], max_messages integer DEFAULT 100, lease interval DEFAULT '30 seconds',
    owner text DEFAULT NULL, consumer text DEFAULT NULL
) RETURNS TABLE (
    token bigint, id bigint, topic text, key text, payload jsonb, data bytea, headers jsonb,
    published_at timestamptz, attempt integer, order_key text
)
LANGUAGE plpgsql VOLATILE ROWS 100
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- claim(), as the only statement of its transaction: its commit does not wait for the disk, if a crash of
    -- the server may forget it.
    --
    -- It may if no order is kept, no consumer is the only one, and no limit counts it: a claim that was forgotten
    -- is as if it had not been, and what is settled under its token is refused. With keys it must last: a
    -- handler that has one would not keep others from it. Trap: a token from a sequence could be drawn twice after such a crash, and
    -- settle what another group holds; hence the time in it.
    PERFORM pg_catalog.set_config('durable_notify.claim_lasts', '', true);
    RETURN QUERY SELECT * FROM durable_notify.claim(group_name, topics, max_messages, lease, owner, consumer);
    IF pg_catalog.current_setting('durable_notify.claim_lasts') = '' THEN
        PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
    END IF;
END
$function$;

CALL durable_notify._grantable('claim_alone', '{consume}');
