CREATE PROCEDURE durable_notify.erase(
    IN key text, IN topics text[] DEFAULT NULL, IN dry_run boolean DEFAULT false, IN why text DEFAULT NULL,
    INOUT report jsonb DEFAULT NULL
)
LANGUAGE plpgsql AS $procedure$
DECLARE
    batch pg_catalog.record;
    after_topic pg_catalog.text;
    after_id pg_catalog.int8;
BEGIN
    -- Remove everything that is kept of a key's messages, in some topics or patterns (NULL: in all), in
    -- many small transactions. report: how many of each there were; see erase_batch(). With dry_run it
    -- only counts. Outside a transaction only. For the owner of the schema.
    --
    -- What had committed when it began is gone when it ends. What commits meanwhile may stay.
    -- Trap: with a SET clause it could not commit, as maintain().
    report := '{}';
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        SELECT b.* INTO batch FROM durable_notify.erase_batch(key, topics, after_topic, after_id, dry_run, why) AS b;
        EXIT WHEN batch.topic IS NULL;
        report := durable_notify._add_places(report, batch.places);
        after_topic := batch.topic;
        after_id := batch.upto_id;
    END LOOP;
    COMMIT;
END
$procedure$;

CREATE FUNCTION durable_notify._add_places(one jsonb, other jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- The sums of two reports of erase_batch().
    SELECT COALESCE(pg_catalog.jsonb_object_agg(s.place, s.messages), '{}') FROM (
        SELECT p.place, pg_catalog.sum(p.messages::bigint) AS messages
          FROM (SELECT * FROM pg_catalog.jsonb_each_text(one) UNION ALL SELECT * FROM pg_catalog.jsonb_each_text(other))
               AS p (place, messages)
         GROUP BY p.place) AS s
$function$;
