CREATE FUNCTION durable_notify._topic_regex(pattern text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $function$
    -- Turn a pattern of topics into a regular expression. A pattern is what NATS takes for subjects:
    -- words between dots; * stands for one word and a last > for one or more.
    -- Trap: without E, and with standard_conforming_strings = off, its backslashes would be half as
    -- many.
    SELECT '^' || pg_catalog.string_agg(
               CASE w.word
                   WHEN '*' THEN '[^.]+'
                   WHEN '>' THEN '.+'
                   ELSE pg_catalog.regexp_replace(w.word, E'([][\\\\.^$|?*+(){}-])', E'\\\\\\1', 'g')
               END, '[.]' ORDER BY w.ord) || '$'
      FROM pg_catalog.unnest(pg_catalog.string_to_array(pattern, '.')) WITH ORDINALITY AS w (word, ord)
$function$;
