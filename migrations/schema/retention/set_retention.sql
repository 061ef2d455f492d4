CREATE FUNCTION durable_notify.set_retention(
    topic text, max_age interval DEFAULT NULL, max_bytes bigint DEFAULT NULL, when_settled boolean DEFAULT false,
    on_lag text DEFAULT 'block', alarm_bytes bigint DEFAULT NULL, compact boolean DEFAULT false,
    archive boolean DEFAULT false, min_age interval DEFAULT NULL, forever boolean DEFAULT false
) RETURNS text[]
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    refused text := durable_notify._check_retention(
        max_age, max_bytes, when_settled, on_lag, alarm_bytes, compact, archive, min_age, forever);
    keyless text;
BEGIN
    -- Set what is removed from a topic, or from those that match a pattern, and when; it replaces what
    -- was set for it before. Of several that match a topic the most specific counts, see
    -- _pattern_specificity(). Returns warnings: which groups lag now, and what that means. For the
    -- owner of the schema.
    --
    -- max_age: so long after it was published; max_bytes: once so much of the topic is younger;
    -- when_settled: as soon as every group has settled it, with min_age not before so long after it was
    -- published. The first of these counts. forever: nothing is removed.
    -- on_lag: 'block', what a group has not settled stays (alarm_bytes: how much before it is an
    -- alarm); or 'lose', it is removed by age or size, and recorded.
    -- compact: the latest message of each key stays; messages without a key are refused from then on.
    -- archive: only what is archived is removed. maintain() does all this.
    IF topic IS NULL OR pg_catalog.octet_length(topic) NOT BETWEEN 1 AND 255 OR durable_notify._has_controls(topic, true)
       OR topic ~ '[*>]' AND topic !~ '^([^.*>]+|[*])([.]([^.*>]+|[*]))*([.]>)?$' AND topic <> '>' THEN
        refused := pg_catalog.format('invalid topic or pattern: %s', COALESCE(pg_catalog.left(topic, 100), 'NULL'));
    END IF;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    PERFORM durable_notify._lock_functions();
    PERFORM durable_notify._block_removal();  -- once this has committed, nothing is removed by the old setting
    INSERT INTO durable_notify.topic_retention AS r
           (pattern, regex, rank, max_age, max_bytes, when_settled, on_lag, alarm_bytes, compact, archive, min_age)
    VALUES (topic, durable_notify._topic_regex(topic), durable_notify._pattern_specificity(topic), max_age, max_bytes, when_settled,
            on_lag, alarm_bytes, compact, archive, min_age)
    ON CONFLICT (pattern) DO UPDATE
       SET max_age = EXCLUDED.max_age, max_bytes = EXCLUDED.max_bytes, when_settled = EXCLUDED.when_settled,
           on_lag = EXCLUDED.on_lag, alarm_bytes = EXCLUDED.alarm_bytes, compact = EXCLUDED.compact,
           archive = EXCLUDED.archive, min_age = EXCLUDED.min_age, set_at = pg_catalog.clock_timestamp(), set_by = SESSION_USER;
    PERFORM durable_notify._rebuild_key_required();
    IF compact THEN
        SELECT t.name INTO keyless FROM durable_notify._topics() AS t (name)
         WHERE (durable_notify._retention_for(t.name)).pattern = set_retention.topic
           AND EXISTS (SELECT FROM durable_notify.outbox o WHERE o.topic = t.name AND o.key IS NULL) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'topic "%" has messages without a key: it cannot be compacted', keyless
                USING ERRCODE = '22023', HINT = 'Have its publishers give each message a key, and have those without one removed '
                    'first, by max_age. Nothing was changed.';
        END IF;
    END IF;
    RETURN ARRAY(
        SELECT pg_catalog.format(
                   CASE on_lag WHEN 'lose' THEN 'group "%s" lags in topic "%s": it loses what it has not settled from id %s on'
                   ELSE 'group "%s" lags in topic "%s": what is from id %s on stays until it has settled it' END,
                   b.group_name, b.topic, b.from_id)
          FROM durable_notify._retention_blockers_of(durable_notify._topic_regex(topic)) AS b
         WHERE (durable_notify._retention_for(b.topic)).pattern = set_retention.topic AND b.group_name IS NOT NULL
         ORDER BY b.topic, b.group_name LIMIT 100);
END
$function$;

CREATE FUNCTION durable_notify._check_retention(
    max_age interval, max_bytes bigint, when_settled boolean, on_lag text, alarm_bytes bigint, compact boolean, archive boolean,
    min_age interval, forever boolean
) RETURNS text
LANGUAGE sql IMMUTABLE AS $function$
    -- What is wrong with a retention, and how to fix it; NULL: nothing.
    SELECT CASE
        WHEN when_settled IS NULL OR compact IS NULL OR archive IS NULL OR forever IS NULL OR on_lag IS NULL
             OR on_lag NOT IN ('block', 'lose')
            THEN 'on_lag must be ''block'' or ''lose'', and when_settled, compact, archive and forever true or false'
        WHEN max_age <= '0' OR max_bytes <= 0 OR alarm_bytes <= 0 OR min_age <= '0'
            THEN 'an age or a size must be more than 0; leave out what does not apply'
        WHEN GREATEST(max_age, min_age) > '1000 years'
            THEN 'an age must be 1000 years at most; to keep messages for ever, give forever'
        WHEN forever AND (COALESCE(max_age, min_age) IS NOT NULL OR COALESCE(max_bytes, alarm_bytes) IS NOT NULL
                          OR when_settled OR compact OR archive OR on_lag = 'lose')
            THEN 'forever removes nothing: leave out the rest'
        WHEN min_age IS NOT NULL AND NOT when_settled
            THEN 'min_age says how long messages stay that every group has settled: give when_settled, too'
        WHEN max_age IS NULL AND max_bytes IS NULL AND NOT when_settled AND NOT compact AND NOT forever
            THEN 'nothing says what to remove: give max_age, max_bytes, when_settled or compact; to keep everything, give forever'
        WHEN min_age >= max_age
            THEN 'max_age removes messages before min_age lets them be removed: give a longer max_age'
        WHEN compact AND when_settled
            THEN 'compact keeps the latest message of each key, and when_settled removes it: choose one of them'
        WHEN on_lag = 'lose' AND max_age IS NULL AND max_bytes IS NULL
            THEN 'a group can lose messages by their age or the topic''s size only: give max_age or max_bytes, or on_lag => ''block'''
        WHEN on_lag = 'lose' AND alarm_bytes IS NOT NULL
            THEN 'alarm_bytes is for what stays because a group lags: with on_lag ''lose'' nothing does'
    END
$function$;

CREATE FUNCTION durable_notify._pattern_specificity(pattern text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $function$
    -- How specific a pattern is among those that match a topic; the lowest counts: the topic itself
    -- first, then the pattern with the most words that are neither * nor >, then one without >, then by
    -- its text.
    SELECT pg_catalog.concat(
        CASE WHEN pattern ~ '[*>]' THEN 1 ELSE 0 END, ' ',
        999 - pg_catalog.count(*) FILTER (WHERE w.word NOT IN ('*', '>')), ' ',
        CASE WHEN pattern ~ '>' THEN 1 ELSE 0 END, ' ', pattern)
      FROM pg_catalog.unnest(pg_catalog.string_to_array(pattern, '.')) AS w (word)
$function$;
