CREATE FUNCTION durable_notify.note_settled(token bigint, ids bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    noted bigint;
BEGIN
    -- Note messages of a lease as settled, or fail where one of them was before.
    INSERT INTO durable_notify.settlement (token, message_id)
    SELECT note_settled.token, pg_catalog.unnest(ids)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS noted = ROW_COUNT;
    IF noted < pg_catalog.cardinality(ids) THEN
        PERFORM durable_notify.raise_settled(token);
    END IF;
    RETURN noted;
END
$function$;
