CREATE FUNCTION durable_notify.refused_retention(
    max_age interval, max_bytes bigint, when_settled boolean, on_lag text, alarm_bytes bigint, compact boolean, archive boolean
) RETURNS text
LANGUAGE sql IMMUTABLE AS $function$
    -- What is wrong with a retention, and what to do about it; NULL: nothing.
    SELECT CASE
        WHEN when_settled IS NULL OR compact IS NULL OR archive IS NULL OR on_lag IS NULL OR on_lag NOT IN ('block', 'lose')
            THEN 'on_lag is ''block'' or ''lose'', and when_settled, compact and archive are true or false'
        WHEN max_age <= '0' OR max_bytes <= 0 OR alarm_bytes <= 0
            THEN 'an age or a size is more than 0; leave out what is not to count'
        WHEN max_age > '1000 years' THEN 'an age is 1000 years at most; leave it out to keep messages for ever'
        WHEN max_age IS NULL AND max_bytes IS NULL AND NOT when_settled AND NOT compact
            THEN 'nothing says what goes: give max_age, max_bytes, when_settled or compact; to keep everything, forget_retention()'
        WHEN compact AND when_settled
            THEN 'compact keeps the latest message of each key, and when_settled lets it go: choose one of them'
        WHEN on_lag = 'lose' AND max_age IS NULL AND max_bytes IS NULL
            THEN 'a group can lose messages by their age or the topic''s size only: give max_age or max_bytes, or on_lag => ''block'''
        WHEN on_lag = 'lose' AND alarm_bytes IS NOT NULL
            THEN 'alarm_bytes is for what stays because a group lags: with on_lag ''lose'' nothing does'
    END
$function$;
