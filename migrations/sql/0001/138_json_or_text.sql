CREATE FUNCTION durable_notify.json_or_text(raw text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- What a text says as JSON; where it is none that can be stored, the text as a JSON string.
    RETURN raw::jsonb;
EXCEPTION
    WHEN data_exception OR program_limit_exceeded THEN
        RETURN pg_catalog.to_jsonb(raw);
END
$function$;
