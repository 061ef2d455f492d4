CREATE FUNCTION durable_notify.capture_progress(
    topic text, channel text, writer text, until timestamptz, gap_since timestamptz DEFAULT NULL, why text DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
BEGIN
    -- Record that the writer has heard and published all that was sent to a channel until then, except
    -- what was sent in a gap, if there was one. The gap is recorded in the audit.
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._capture_progress_granted(topic, channel, writer, until, gap_since, why);
        RETURN;
    END IF;
    INSERT INTO durable_notify.capture AS c (topic, channel, writer, heard_until)
    VALUES (capture_progress.topic, capture_progress.channel, capture_progress.writer, capture_progress.until)
    ON CONFLICT ON CONSTRAINT capture_pkey DO UPDATE SET heard_until = GREATEST(c.heard_until, EXCLUDED.heard_until);
    IF gap_since IS NOT NULL THEN
        PERFORM durable_notify._record_audit('capture gap', '', pg_catalog.jsonb_build_object(
            'channel', channel, 'since', gap_since, 'until', until), topic, NULL, why);
    END IF;
END
$function$;

CALL durable_notify._grantable('capture_progress', '{publish}', $$_require('publish', ARRAY[topic])$$);
