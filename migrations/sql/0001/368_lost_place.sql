CREATE FUNCTION durable_notify.lost_place(
    place durable_notify.position, seen pg_snapshot, last bigint
) RETURNS durable_notify.position
LANGUAGE plpgsql IMMUTABLE AS $function$
BEGIN
    -- Where a subscription stands once everything up to an id that is visible in a snapshot counts as
    -- handed over, and nothing else that did not. NULL where two pairs of a snapshot and an id cannot say so.
    --
    -- Handed over is what is visible in s0 up to h0, or in s1 up to p. What commits late is not, however
    -- low its id. A window that is opened here ends where the old place did.
    IF GREATEST(place.h0, CASE WHEN place.s1 IS NOT NULL THEN place.p END) <= last THEN
        place.s0 := seen;
        place.h0 := last;
        place.s1 := NULL;
        place.h1 := NULL;
        place.p := 0;
        RETURN place;
    END IF;
    IF place.s1 IS NOT NULL AND place.p > last THEN
        IF place.h0 > place.p THEN
            RETURN NULL;  -- amid its stragglers, and past this: it gets the few there are
        END IF;
        place.s0 := place.s1;
        place.h0 := place.p;
    END IF;
    place.s1 := seen;
    place.h1 := place.h0;
    place.p := last;
    RETURN place;
END
$function$;
