CREATE FUNCTION durable_notify.truncated() RETURNS trigger
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Look everywhere again where the log was emptied by hand: TRUNCATE ... RESTART IDENTITY has ids drawn
    -- again, below what readers leave out as closed, and below what counts as archived or compacted. Leaves that
    -- are closed take rows again; see begin_anew().
    PERFORM durable_notify.hold_functions();
    PERFORM durable_notify.begin_anew();
    UPDATE durable_notify.log_layout SET closed_below = 0;
    PERFORM durable_notify.set_closed(0, '3');
    RETURN NULL;
END
$function$;
