CREATE FUNCTION durable_notify.unacknowledged(group_name text, ids bigint[]) RETURNS TABLE (message_id bigint, is_dead boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- Of some messages that were once delivered to a group, return those that are not acknowledged:
    -- they are to be redelivered, a consumer holds them, or they are dead letters.
    --
    -- For a consumer that settled a lease, lost the connection meanwhile, and finds the lease gone. It
    -- was settled, or reclaimed, or delivered by a claim that the server forgot in a crash. One
    -- statement, since a message moves from one of these states to the next in one transaction.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._unacknowledged_granted(group_name, ids);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT found.id, found.is_dead FROM (
        SELECT o.id,
               EXISTS (SELECT FROM durable_notify.dead_letter d
                        WHERE d.subscription_id = s.id AND d.message_id = o.id) AS is_dead,
               EXISTS (SELECT FROM durable_notify.deferred d WHERE d.subscription_id = s.id AND d.message_id = o.id)
               OR EXISTS (SELECT FROM durable_notify.lease l
                           WHERE l.subscription_id = s.id AND o.id = ANY (l.ids)
                             AND NOT EXISTS (SELECT FROM durable_notify.settlement t
                                              WHERE t.token = l.token AND t.message_id = o.id))
               OR NOT (o.id <= pos.h0 AND pg_catalog.pg_visible_in_snapshot(o.xid, pos.s0)
                       OR o.id <= pos.p AND COALESCE(pg_catalog.pg_visible_in_snapshot(o.xid, pos.s1), false))
               AS is_out
          FROM durable_notify.consumer_group g
          JOIN durable_notify.subscription s ON s.group_id = g.id
         CROSS JOIN LATERAL (SELECT DISTINCT i.id FROM pg_catalog.unnest(ids) AS i (id)) AS asked
         CROSS JOIN LATERAL durable_notify._message(s.topic, asked.id, asked.id, asked.id) AS o
         CROSS JOIN LATERAL (
               SELECT p.* FROM durable_notify.position p
                WHERE p.subscription_id = s.id ORDER BY p.seq DESC LIMIT 1) AS pos
         WHERE g.name = group_name) AS found
     WHERE found.is_out OR found.is_dead
     ORDER BY found.id;
END
$function$;

CALL durable_notify._grantable('unacknowledged', '{consume}', $$_require('consume', NULL, group_name)$$);
