-- revision: 2
-- Appends a batch of a program that knows nothing of forks (0.1.0); see append_batch.
CREATE OR REPLACE FUNCTION append(
    at           timestamptz,
    streams      stream_version[],
    new_events   new_event[],
    outcomes     new_outcome[],
    moves        checkpoint_move[],
    timers_set   timer_change[],
    OUT first    bigint,
    OUT conflict jsonb
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    SELECT b.first, b.conflict INTO first, conflict
      FROM append_batch(at, streams, new_events, outcomes,
                        ARRAY(SELECT ROW(m.consumer, m.after, m.upto, NULL)::checkpoint_advance FROM unnest(moves) AS m),
                        timers_set, NULL, NULL, NULL) AS b;
END $$;
