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
    -- claim(), as the only statement of its transaction: its commit does not wait for the disk, if a
    -- crash of the server may forget it.
    --
    -- A crash may forget it if the group keeps no order, is not exclusive, and no limit counts the
    -- claim. A forgotten claim is as if it had not been made, and settling under its token is refused.
    -- With keys it must last: after a crash, a handler that still has a key would not keep others from
    -- it.
    -- Trap: after such a crash a sequence could give a token twice, and the first holder would settle
    -- what another group holds; hence the time in the token.
    PERFORM pg_catalog.set_config('durable_notify.claim_lasts', '', true);
    RETURN QUERY SELECT * FROM durable_notify.claim(group_name, topics, max_messages, lease, owner, consumer);
    IF pg_catalog.current_setting('durable_notify.claim_lasts') = '' THEN
        PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
    END IF;
END
$function$;

CALL durable_notify._grantable('claim_alone', '{consume}');
