CREATE FUNCTION durable_notify.record_ages() RETURNS TABLE (kind text, age interval)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- For how long records are kept, by kind; NULL: for ever. See set_record_age().
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._record_ages_granted();
        RETURN;
    END IF;
    RETURN QUERY
    SELECT k.kind, durable_notify._age_of_records(k.kind) FROM pg_catalog.unnest('{inbox,audit}'::text[]) AS k (kind);
END
$function$;

CREATE FUNCTION durable_notify._age_of_records(kind text) RETURNS interval
LANGUAGE sql STABLE AS $function$
    -- For how long records of a kind are kept; NULL: for ever.
    SELECT r.age FROM durable_notify.record_age r WHERE r.kind = _age_of_records.kind
$function$;

CALL durable_notify._grantable('record_ages', '{observe,consume}', $$_require_observe()$$);
