CREATE FUNCTION durable_notify.retention_rank(pattern text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $function$
    -- Where a pattern stands among those that fit a topic; the lowest counts: the topic itself first, then
    -- the pattern with the most words that are none of * and >, then one without >, then by its text.
    SELECT pg_catalog.concat(
        CASE WHEN pattern ~ '[*>]' THEN 1 ELSE 0 END, ' ',
        999 - pg_catalog.count(*) FILTER (WHERE w.word NOT IN ('*', '>')), ' ',
        CASE WHEN pattern ~ '>' THEN 1 ELSE 0 END, ' ', pattern)
      FROM pg_catalog.unnest(pg_catalog.string_to_array(pattern, '.')) AS w (word)
$function$;
