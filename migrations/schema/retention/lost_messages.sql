CREATE FUNCTION durable_notify.lost_messages(for_group text DEFAULT NULL) RETURNS TABLE (
    id bigint, at timestamptz, group_name text, topic text, first_id bigint, last_id bigint, messages bigint, reason text
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- What a group (NULL: all that the caller may see) has lost to retention, the newest first.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._lost_messages_granted(for_group);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT l.id, l.at, l.group_name, l.topic, l.first_id, l.last_id, l.messages, l.reason FROM durable_notify.lost_message l
     WHERE for_group IS NULL OR l.group_name = for_group
     ORDER BY l.id DESC;
END
$function$;

CALL durable_notify._grantable('lost_messages', '{observe,consume}', $$_require_observe(for_group)$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
