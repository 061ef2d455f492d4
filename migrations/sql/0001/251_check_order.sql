CREATE FUNCTION durable_notify.check_order(held durable_notify.lease, done bigint[], retried bigint[]) RETURNS void
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
DECLARE
    early bigint;
BEGIN
    -- Refuse to be done with a message while an earlier one of its key, in the same lease, is not.
    SELECT m.id INTO early FROM (
        SELECT a.id, a.place,
               pg_catalog.min(a.place) FILTER (WHERE a.id = ANY (retried) OR a.id <> ALL (done) AND NOT EXISTS (
                   SELECT FROM durable_notify.settlement t WHERE t.token = held.token AND t.message_id = a.id))
                   OVER (PARTITION BY a.key) AS first_open
          FROM ROWS FROM (pg_catalog.unnest(held.ids), pg_catalog.unnest(held.keys)) WITH ORDINALITY AS a (id, key, place)
         WHERE a.key IN (SELECT k.key FROM ROWS FROM (pg_catalog.unnest(held.ids), pg_catalog.unnest(held.keys)) AS k (id, key)
                          WHERE k.id = ANY (done))) AS m
     WHERE m.place > m.first_open AND m.id = ANY (done)
     LIMIT 1;
    IF early IS NOT NULL THEN
        RAISE EXCEPTION 'message % is not the next of its key: an earlier one in lease % is not settled', early, held.token
            USING ERRCODE = 'DN007', HINT = 'Settle messages of one key in order, or retry the earlier one.';
    END IF;
END
$function$;
