CREATE FUNCTION durable_notify._save_position(
    old_place durable_notify.position, new_place durable_notify.position, lease_tokens bigint[]
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Append a subscription's new position and delete exactly the one before it. The caller holds
    -- the group's lock. Trap: updating in place, or "DELETE ... seq < newest", is walked version
    -- by version while somebody holds xmin. Trap: delete first. In a frozen snapshot the old place may not
    -- be the newest any more: that is a serialization failure (40001) here, and would be a duplicate key there.
    DELETE FROM durable_notify.position q
     WHERE q.subscription_id = old_place.subscription_id AND q.seq = old_place.seq;
    INSERT INTO durable_notify.position (subscription_id, seq, s0, h0, s1, h1, p, lease_tokens, expired)
    VALUES (old_place.subscription_id, old_place.seq + 1, new_place.s0, new_place.h0,
            new_place.s1, new_place.h1, new_place.p, _save_position.lease_tokens, new_place.expired);
END
$function$;
