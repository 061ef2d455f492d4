CREATE FUNCTION durable_notify.retention_of(topic text) RETURNS durable_notify.topic_retention
LANGUAGE plpgsql STABLE STRICT AS $function$
#variable_conflict use_column
DECLARE
    found durable_notify.topic_retention;
BEGIN
    -- What is said of a topic: of all that fits it, what fits it best; NULL: nothing, it is kept for ever.
    SELECT r.* INTO found FROM durable_notify.topic_retention r
     WHERE retention_of.topic ~ r.regex ORDER BY r.rank LIMIT 1;
    RETURN found;
END
$function$;
