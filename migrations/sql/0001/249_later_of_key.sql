CREATE FUNCTION durable_notify.later_of_key(held durable_notify.lease, retried bigint[], settled bigint[])
RETURNS bigint[]
LANGUAGE plpgsql STABLE STRICT AS $function$
#variable_conflict use_column
BEGIN
    -- Messages of a lease that come after a retried one of their key and are not settled.
    RETURN ARRAY(
        SELECT m.id
          FROM ROWS FROM (pg_catalog.unnest(held.ids), pg_catalog.unnest(held.keys)) WITH ORDINALITY AS m (id, key, place)
          JOIN (SELECT r.key, pg_catalog.min(r.place) AS place
                  FROM ROWS FROM (pg_catalog.unnest(held.ids), pg_catalog.unnest(held.keys))
                       WITH ORDINALITY AS r (id, key, place)
                 WHERE r.id = ANY (retried) GROUP BY r.key) AS first
            ON first.key = m.key AND m.place > first.place
         WHERE m.id <> ALL (settled)
           AND NOT EXISTS (SELECT FROM durable_notify.settlement t WHERE t.token = held.token AND t.message_id = m.id)
         ORDER BY m.place);
END
$function$;
