CREATE FUNCTION durable_notify.note_losses(topic text, below bigint) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '50ms'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    part durable_notify.subscription;
    policy durable_notify.topic_retention := durable_notify.retention_of(topic);
    lost bigint := 0;
BEGIN
    -- Where a topic's retention says lose: have the groups that lag lose what they have not settled below
    -- an id, and record it; returns how many messages that is. At most 5,000 of one group at once: call it
    -- until it returns 0. A busy group is left for the next time. Claims of the group wait until the commit.
    IF policy.on_lag IS DISTINCT FROM 'lose' THEN
        RETURN 0;
    END IF;
    below := LEAST(below, durable_notify.policy_below(topic, policy),
                   durable_notify.sealed_below());
    FOR part IN SELECT s.* FROM durable_notify.subscription s WHERE s.topic = note_losses.topic ORDER BY s.group_id LOOP
        EXIT WHEN lost > 0;  -- not to wait for one group while others wait for this
        CONTINUE WHEN durable_notify.settled_below(part.id, below) >= below;
        BEGIN
            PERFORM durable_notify.hold_group(part.group_id);
        EXCEPTION WHEN lock_not_available THEN
            CONTINUE;
        END;
        IF EXISTS (SELECT FROM durable_notify.subscription s WHERE s.id = part.id) THEN
            lost := lost + durable_notify.note_loss(
                part, below, pg_catalog.concat_ws(', ', 'max_age ' || policy.max_age, 'max_bytes ' || policy.max_bytes));
        END IF;
    END LOOP;
    RETURN lost;
END
$function$;
