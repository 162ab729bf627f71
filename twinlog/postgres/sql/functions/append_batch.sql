-- revision: 3
-- Appends a batch of a program from before batches were linked; see append_linked. What it appends is sealed later.
CREATE OR REPLACE FUNCTION append_batch(
    at           timestamptz,
    streams      stream_version[],
    new_events   new_event[],
    outcomes     new_outcome[],
    moves        checkpoint_advance[],
    timers_set   timer_change[],
    known_era      integer,
    known_position bigint,
    known_event    uuid,
    OUT first    bigint,
    OUT conflict jsonb,
    OUT before   uuid
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    SELECT a.first, a.conflict, a.before INTO first, conflict, before
      FROM append_linked(at, streams, new_events, outcomes, moves, timers_set, known_era, known_position, known_event,
                         NULL, NULL) AS a;
END $$;
