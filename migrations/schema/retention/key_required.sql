CREATE FUNCTION durable_notify._rebuild_key_required() RETURNS void
LANGUAGE plpgsql AS $function$
DECLARE
    cases text;
BEGIN
    -- Rewrite _key_required() from topic_retention, which the caller has locked. A topic that is no
    -- longer compacted is looked at from the beginning, if it is compacted again.
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        -- A frozen snapshot would leave out what others have set since.
        RAISE EXCEPTION 'a topic''s retention must be changed in a READ COMMITTED transaction'
            USING ERRCODE = '22023', HINT = 'Begin one with BEGIN ISOLATION LEVEL READ COMMITTED. Nothing was changed.';
    END IF;
    IF EXISTS (SELECT FROM durable_notify.topic_retention r WHERE r.compact) THEN
        cases := (SELECT pg_catalog.string_agg(
                      CASE WHEN r.pattern ~ '[*>]' THEN pg_catalog.format('WHEN topic OPERATOR(pg_catalog.~) %L THEN %s', r.regex, r.compact::text)
                           ELSE pg_catalog.format('WHEN topic OPERATOR(pg_catalog.=) %L THEN %s', r.pattern, r.compact::text) END,
                      ' ' ORDER BY r.rank)
                    FROM durable_notify.topic_retention r);
    END IF;
    PERFORM durable_notify._rewrite_inlined('durable_notify._key_required(text)', cases, 'false');
    UPDATE durable_notify.maintenance_progress p SET compacted_below = 1
     WHERE p.compacted_below > 1 AND NOT COALESCE((durable_notify._retention_for(p.topic)).compact, false);
END
$function$;

CALL durable_notify._grantable('_key_required', '{insert}');
