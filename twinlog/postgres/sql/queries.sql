-- name: append
-- Appends a batch, all of it or nothing; see the function.
SELECT first, conflict, before FROM append_linked($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: lock_head
-- Shuts other writers out until the transaction ends.
SELECT position FROM log_head FOR UPDATE;

-- name: snapshots
-- The snapshots of some streams that have the schema they are wanted with. One that was made at another event than the
-- stream has at that version, or ahead of it, as after a restore of some tables, comes without its state: no event could
-- be appended to what it says, or only to a state that is none of the stream's, so it is made anew.
SELECT s.stream_type, s.stream_id, s.version, s.position, s.schema,
       CASE WHEN EXISTS (SELECT FROM event_at(s.stream_type, s.stream_id, s.version) e WHERE e.at = s.position)
            THEN s.state ELSE '' END
  FROM unnest($1::text[], $2::text[], $3::text[]) AS w (type, id, schema)
  JOIN snapshots s ON s.stream_type = w.type AND s.stream_id = w.id AND s.schema = w.schema;

-- name: histories
-- The events of some streams after some versions and up to others, stream by stream; of those that are in the archive,
-- their positions. Times that the program cannot tell are told as the nearest that it can.
SELECT w.i, e.position, e.version, e.event_id, e.type, e.payload, e.metadata, e.partition_key, e.tag,
       least(greatest(e.recorded_at, '0001-01-02 00:00Z'), '9999-12-30 00:00Z') AS recorded_at, e.extra, NULL::bigint[] AS archived
  FROM unnest($1::text[], $2::text[], $3::integer[], $4::integer[]) WITH ORDINALITY AS w (type, id, after, upto, i)
  JOIN events e ON e.stream_type = w.type AND e.stream_id = w.id AND e.version > w.after AND e.version <= w.upto
UNION ALL
SELECT w.i, 0, a.version, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, a.positions
  FROM unnest($1::text[], $2::text[], $3::integer[], $4::integer[]) WITH ORDINALITY AS w (type, id, after, upto, i)
  JOIN archived_streams a ON a.stream_type = w.type AND a.stream_id = w.id
   AND a.version > w.after AND a.first_version <= w.upto
 ORDER BY 1, 3;

-- name: histories_to_fold
-- The same with what a fold takes of them.
SELECT w.i, e.position, e.version, e.type, e.payload, NULL::bigint[] AS archived
  FROM unnest($1::text[], $2::text[], $3::integer[], $4::integer[]) WITH ORDINALITY AS w (type, id, after, upto, i)
  JOIN events e ON e.stream_type = w.type AND e.stream_id = w.id AND e.version > w.after AND e.version <= w.upto
UNION ALL
SELECT w.i, 0, a.version, NULL, NULL, a.positions
  FROM unnest($1::text[], $2::text[], $3::integer[], $4::integer[]) WITH ORDINALITY AS w (type, id, after, upto, i)
  JOIN archived_streams a ON a.stream_type = w.type AND a.stream_id = w.id
   AND a.version > w.after AND a.first_version <= w.upto
 ORDER BY 1, 3;

-- name: read
-- Events after a position, in order.
SELECT position, stream_type, stream_id, version, event_id, type, payload, metadata, partition_key, tag,
       least(greatest(recorded_at, '0001-01-02 00:00Z'), '9999-12-30 00:00Z') AS recorded_at, extra
  FROM events WHERE position > $1 ORDER BY position LIMIT $2;

-- name: related
-- The events between two positions that have one of some correlation ids or causes, in order.
SELECT position, stream_type, stream_id, version, event_id, type, payload, metadata, partition_key, tag,
       least(greatest(recorded_at, '0001-01-02 00:00Z'), '9999-12-30 00:00Z') AS recorded_at, extra
  FROM events WHERE position > $1 AND position <= $2
   AND (metadata ->> 'correlation_id' = ANY ($3::text[]) OR metadata ->> 'causation_id' = ANY ($4::text[]))
 ORDER BY position;

-- name: found
-- The newest events between two positions that fit: their types, full or short names; the type of their streams, their
-- routing key, the request that set them off; what is empty restricts nothing.
SELECT position, stream_type, stream_id, version, event_id, type, payload, metadata, partition_key, tag,
       least(greatest(recorded_at, '0001-01-02 00:00Z'), '9999-12-30 00:00Z') AS recorded_at, extra
  FROM events WHERE position > $1 AND position <= $2
   AND (cardinality($3::text[]) = 0 OR type = ANY ($3::text[]) OR split_part(type, '.', -1) = ANY ($3::text[]))
   AND ($4::text = '' OR stream_type = $4::text)
   AND ($5::text = '' OR tag = $5::text)
   AND ($6::text = '' OR metadata ->> 'correlation_id' = $6::text)
   AND ($7::timestamptz IS NULL OR recorded_at >= $7::timestamptz)
   AND ($8::timestamptz IS NULL OR recorded_at < $8::timestamptz)
 ORDER BY position DESC LIMIT $9;

-- name: found_in
-- The same of one stream, between two of its versions.
SELECT position, stream_type, stream_id, version, event_id, type, payload, metadata, partition_key, tag,
       least(greatest(recorded_at, '0001-01-02 00:00Z'), '9999-12-30 00:00Z') AS recorded_at, extra
  FROM events WHERE stream_type = $1 AND stream_id = $2 AND version > $3 AND version <= $4
   AND (cardinality($5::text[]) = 0 OR type = ANY ($5::text[]) OR split_part(type, '.', -1) = ANY ($5::text[]))
   AND ($6::text = '' OR tag = $6::text)
   AND ($7::text = '' OR metadata ->> 'correlation_id' = $7::text)
   AND ($8::timestamptz IS NULL OR recorded_at >= $8::timestamptz)
   AND ($9::timestamptz IS NULL OR recorded_at < $9::timestamptz)
 ORDER BY version DESC LIMIT $10;

-- name: head
-- The position of the last event.
SELECT position FROM log_head;

-- name: era
-- The era of the log's history.
SELECT era FROM log_head;

-- name: last
-- The position of the last event that is there.
SELECT greatest((SELECT max(position) FROM events), (SELECT max(last) FROM archived_ranges), 0);

-- name: unguarded
-- The tables that take inserts only, as far as what refuses the rest is switched off or gone.
SELECT name FROM unnest('{events,chain}'::text[]) AS t (name) WHERE NOT EXISTS (
       SELECT FROM pg_trigger WHERE tgrelid = to_regclass(name) AND tgname = 'insert_only' AND tgenabled IN ('O', 'A'));

-- name: indexes_astray
-- Of these indexes, with the tables that they are of, those that are gone; and all that are not whole.
SELECT name, true FROM unnest($1::text[], $2::text[]) AS t (name, of)
 WHERE to_regclass(name) IS NULL AND to_regclass(of) IS NOT NULL
UNION ALL
SELECT quote_ident(c.relname), false FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE NOT (i.indisvalid AND i.indisready AND i.indislive) AND c.relnamespace = current_schema()::regnamespace
 ORDER BY 1;

-- name: first_gap
-- The first positions that have no event, although later ones have; archived ones do not count.
SELECT before + 1, position - 1
  FROM (SELECT position, lag(position, 1, archived) OVER (ORDER BY position) AS before
          FROM events, (SELECT coalesce(max(last), 0) AS archived FROM archived_ranges) AS a
         WHERE position > archived) AS e
 WHERE position > before + 1 ORDER BY position LIMIT 1;

-- name: head_astray
-- Where the head of the log and its last event are, if they are not the same; and how many links it notes and the chain
-- has, if these are more: the next one would have the number of another. A log that is being filled has its head at the
-- end.
SELECT current_database() || coalesce('/' || nullif(current_setting('twinlog.schema', true), ''), ''), h.position, e.ends,
       h.links, e.links
  FROM (SELECT greatest((SELECT max(position) FROM events), (SELECT max(last) FROM archived_ranges), 0) AS ends,
               (SELECT max(number) FROM chain) AS links) AS e
  LEFT JOIN log_head h ON true
 WHERE (h.position IS DISTINCT FROM e.ends OR h.links < e.links)
   AND NOT EXISTS (SELECT FROM log_imports WHERE finished_at IS NULL);

-- name: known_end
-- The last position that was given to an event, as far as the chain and the outcomes of requests know.
SELECT greatest((SELECT max(last_position) FROM chain WHERE kind <> 3 AND number > coalesce(
                    (SELECT max(number) FROM chain WHERE kind = 3), 0)),
                (SELECT max(position) FROM requests), 0);

-- name: place_head
-- Sets the head of the log to its last event.
SELECT place_head();

-- name: begin_era
-- Has every writer compare what it knows before it appends again.
UPDATE log_head SET era = era + 1;

-- name: replies
-- The stored outcomes of some requests.
SELECT request_id, fingerprint, reply, position FROM requests WHERE request_id = ANY ($1::text[]);

-- name: checkpoint
-- Where a consumer stands.
SELECT position FROM checkpoints WHERE consumer = $1;

-- name: last_handled
-- An event that a consumer has handled, if one is known.
SELECT event_position, event_id FROM checkpoints WHERE consumer = $1 AND event_id IS NOT NULL;

-- name: checkpoints
-- Where every consumer stands.
SELECT consumer, position FROM checkpoints;

-- name: lock_view
-- Has other projections of a view's table wait until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('twinlog.view.' || $1::text || coalesce(current_setting('twinlog.schema', true), ''), 0));

-- name: page_token_secret
-- What signs page tokens.
SELECT secret FROM page_token_secret;

-- name: make_page_token_secret
-- Makes it anew where somebody has taken it out, or emptied it: page tokens from before are refused from now on.
INSERT INTO page_token_secret AS kept (secret)
SELECT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
ON CONFLICT (single) DO UPDATE SET secret = excluded.secret WHERE kept.secret = '';

-- name: blockers
-- What another session of this database waits for: sessions that hold a lock, and wait for none themselves, prepared
-- transactions, which have no session, and replicas, which are neither.
SELECT DISTINCT b.pid, b.application_name, b.state,
       round(extract(epoch FROM clock_timestamp() - b.xact_start))::bigint AS seconds, NULL::text AS gid
  FROM pg_stat_activity w
  CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS holder (pid)
  JOIN pg_stat_activity b ON b.pid = holder.pid AND b.wait_event_type IS DISTINCT FROM 'Lock'
 WHERE w.datname = current_database() AND w.wait_event_type = 'Lock'
UNION ALL
SELECT NULL, NULL, NULL, round(extract(epoch FROM clock_timestamp() - prepared))::bigint, quote_literal(gid)
  FROM pg_prepared_xacts
 WHERE database = current_database()
   AND EXISTS (SELECT FROM pg_stat_activity w WHERE w.datname = current_database() AND w.wait_event_type = 'Lock'
                  AND 0 = ANY (pg_blocking_pids(w.pid)))
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL
 WHERE EXISTS (SELECT FROM pg_stat_activity w WHERE w.datname = current_database() AND w.wait_event = 'SyncRep');

-- name: holders
-- Who holds what an append takes, the row of log_head or a table, by transaction. How old its lock is says whoever looks
-- twice: a role may not see other sessions' times.
SELECT l.virtualtransaction, l.pid, b.application_name, b.state,
       round(extract(epoch FROM clock_timestamp() - coalesce(b.xact_start, p.prepared)))::bigint AS seconds,
       quote_literal(p.gid) AS gid
  FROM pg_locks l
  LEFT JOIN pg_stat_activity b ON b.pid = l.pid
  LEFT JOIN (SELECT own.virtualtransaction, x.gid, x.prepared
               FROM pg_prepared_xacts x
               JOIN pg_locks own ON own.locktype = 'transactionid' AND own.transactionid = x.transaction
                                AND own.granted AND own.pid IS NULL) p
         ON p.virtualtransaction = l.virtualtransaction AND l.pid IS NULL
 WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
   AND (l.pid IS NOT NULL OR p.gid IS NOT NULL)
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND b.wait_event_type IS DISTINCT FROM 'Lock'
   AND (l.relation = 'log_head'::regclass AND l.mode IN ('RowShareLock', 'RowExclusiveLock')
        OR l.relation IN ('log_head'::regclass, 'events'::regclass, 'chain'::regclass, 'requests'::regclass,
                          'checkpoints'::regclass, 'timers'::regclass)
           AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'));

-- name: due
-- The timers that are due, oldest first: by this clock, too, which may have been set back since a process looked at it.
-- A time that the program cannot tell is told as the nearest that it can.
SELECT stream_type, stream_id, version, greatest(due, '0001-01-02 00:00Z') AS due FROM timers
 WHERE due <= least($1::timestamptz, now()) ORDER BY timers.due, stream_type, stream_id LIMIT $2;

-- name: due_after
-- The timers that are due and follow another one, oldest first.
SELECT stream_type, stream_id, version, greatest(due, '0001-01-02 00:00Z') AS due FROM timers
 WHERE due <= least($1::timestamptz, now()) AND due >= $3 AND (due, stream_type, stream_id) > ($3, $4, $5)
 ORDER BY timers.due, stream_type, stream_id LIMIT $2;

-- name: save
-- Keeps snapshots; an older one never replaces a newer one of the same schema.
INSERT INTO snapshots AS kept (stream_type, stream_id, version, position, schema, state)
SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::bigint[], $5::text[], $6::bytea[])
ON CONFLICT (stream_id, stream_type) DO UPDATE
   SET version = excluded.version, position = excluded.position, schema = excluded.schema, state = excluded.state
 WHERE kept.schema <> excluded.schema OR kept.version < excluded.version;

-- name: keep_snapshots
-- Keeps snapshots of versions whose events are there.
INSERT INTO kept_snapshots (stream_type, stream_id, version, event_id, position, schema, checksum, state)
SELECT s.type, s.id, s.version, coalesce(e.id, '00000000-0000-0000-0000-000000000000'), e.at, s.schema, s.checksum, s.state
  FROM unnest($1::text[], $2::text[], $3::integer[], $4::bigint[], $5::text[], $6::bigint[], $7::bytea[])
       AS s (type, id, version, position, schema, checksum, state)
  JOIN LATERAL event_at(s.type, s.id, s.version) e ON e.at = s.position
ON CONFLICT (stream_id, stream_type, version) DO UPDATE
   SET event_id = excluded.event_id, position = excluded.position, schema = excluded.schema,
       checksum = excluded.checksum, state = excluded.state, kept_at = excluded.kept_at;

-- name: nearest_snapshot
-- The newest snapshot of a stream up to a version, kept or not, whose event is still the one that it was made at.
SELECT s.version, s.position, s.schema, s.state, s.checksum FROM (
    (SELECT k.version, k.position, k.schema, k.state, k.checksum FROM kept_snapshots k
       JOIN LATERAL event_at(k.stream_type, k.stream_id, k.version) e
         ON e.at = k.position AND coalesce(e.id, k.event_id) = k.event_id
      WHERE k.stream_id = $2 AND k.stream_type = $1 AND k.schema = $3 AND k.version <= $4
      ORDER BY k.version DESC LIMIT 1)
    UNION ALL
    (SELECT n.version, n.position, n.schema, n.state, NULL FROM snapshots n
       JOIN LATERAL event_at(n.stream_type, n.stream_id, n.version) e ON e.at = n.position
      WHERE n.stream_id = $2 AND n.stream_type = $1 AND n.schema = $3 AND n.version <= $4)
) s ORDER BY s.version DESC LIMIT 1;

-- name: kept_snapshots
-- A page of the kept snapshots of a stream, or of all streams of a type, or of all.
SELECT k.stream_type, k.stream_id, k.version, k.position, k.schema, octet_length(k.state), k.kept_at, EXISTS (
       SELECT FROM event_at(k.stream_type, k.stream_id, k.version) e
        WHERE e.at = k.position AND coalesce(e.id, k.event_id) = k.event_id)
  FROM kept_snapshots k
 WHERE ($1 = '' OR k.stream_type = $1) AND ($2 = '' OR k.stream_id = $2)
   AND (k.stream_type, k.stream_id, k.version) > ($3, $4, $5)
 ORDER BY k.stream_type, k.stream_id, k.version LIMIT $6;

-- name: drop_kept_snapshots
-- Drops the kept snapshots of a stream, or of all streams of a type; with $3, only those of no multiple of that.
WITH dropped AS (
    DELETE FROM kept_snapshots WHERE stream_type = $1 AND ($2 = '' OR stream_id = $2) AND ($3 = 0 OR version % $3 <> 0)
    RETURNING version
)
SELECT count(*) FROM dropped;

-- name: long_streams
-- The streams of a type that have an event of a version.
SELECT stream_id FROM events WHERE stream_type = $1 AND version = $2
UNION
SELECT stream_id FROM archived_streams WHERE stream_type = $1 AND version >= $2 AND first_version <= $2
 ORDER BY stream_id;

-- name: version_at_position
-- The last version of a stream up to a position, by halving: each step looks at one event.
WITH RECURSIVE step (at, bit) AS (
    SELECT 0, 1 << 30
    UNION ALL
    SELECT CASE WHEN e.position <= $3 THEN at + bit ELSE at END, bit / 2
      FROM step LEFT JOIN LATERAL (
           SELECT f.at AS position FROM event_at($1, $2, step.at + bit) f
           ) e ON true
     WHERE bit > 0
)
SELECT at FROM step WHERE bit = 0;

-- name: version_at_time
-- The last version of a stream that was recorded by a time, by halving. It looks at the same events whatever was
-- appended since, so the answer stays. LIMIT has each step look them up by the index: joined, all were read for one.
WITH RECURSIVE step (at, bit) AS (
    SELECT 0, 1 << 30
    UNION ALL
    SELECT CASE WHEN e.recorded_at <= $3 THEN at + bit ELSE at END, bit / 2
      FROM step LEFT JOIN LATERAL (
           SELECT recorded_at FROM events WHERE stream_id = $2 AND stream_type = $1 AND version = at + bit LIMIT 1
           ) e ON true
     WHERE bit > 0
)
SELECT at FROM step WHERE bit = 0;

-- name: position_at_time
-- The last position that was recorded by a time, in the same way.
WITH RECURSIVE step (at, bit) AS (
    SELECT 0::bigint, 1::bigint << 40
    UNION ALL
    SELECT CASE WHEN e.recorded_at <= $1 THEN at + bit ELSE at END, bit / 2
      FROM step LEFT JOIN LATERAL (SELECT recorded_at FROM events WHERE position = at + bit LIMIT 1) e ON true
     WHERE bit > 0
)
SELECT at FROM step WHERE bit = 0;

-- name: causes_between
-- Of each log, the last event that caused one of the events between two positions.
SELECT split_part(cause, '/', 1), max(split_part(cause, '/', 2)::bigint) FROM (
    SELECT metadata ->> 'causation_id' AS cause FROM events WHERE position > $1 AND position <= $2
) e WHERE cause ~ '^[^/]+/[0-9]{1,18}$' GROUP BY 1;

-- name: causes_of
-- The events between two positions that another log caused: where they are, and what their cause is.
SELECT position, metadata ->> 'causation_id' FROM events
 WHERE position > $1 AND position <= $2 AND metadata ->> 'causation_id' ~ '^[^/]+/[0-9]{1,18}$' ORDER BY position;

-- name: causal_marks
-- The marks of a log whose events are still those that they were made at. What is archived does not change.
SELECT m.position, m.causes FROM causal_marks m LEFT JOIN events e USING (position)
 WHERE e.event_id = m.event_id
    OR e.event_id IS NULL AND m.position <= (SELECT coalesce(max(last), 0) FROM archived_ranges)
 ORDER BY m.position;

-- name: mark_causes
-- Remembers what the events up to a position were caused by.
INSERT INTO causal_marks (position, event_id, causes)
SELECT $1::bigint, $3::uuid, $2::jsonb
ON CONFLICT (position) DO UPDATE SET event_id = excluded.event_id, causes = excluded.causes;

-- name: keep_row
-- Keeps a row of a view as it was at a version of its stream.
INSERT INTO kept_rows (view, log, stream, version, position, recorded_at, event_id, schema, row)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (stream, view, log, version) DO UPDATE
   SET position = excluded.position, recorded_at = excluded.recorded_at, event_id = excluded.event_id,
       schema = excluded.schema, row = excluded.row;

-- name: nearest_row
-- The newest kept row of a view and a stream up to a version, a position and a time.
SELECT version, position, recorded_at, event_id, schema, row FROM kept_rows
 WHERE view = $1 AND log = $2 AND stream = $3 AND schema = $4
   AND version <= $5 AND position <= $6 AND recorded_at <= $7
 ORDER BY version DESC LIMIT 1;

-- name: drop_kept_rows
-- Drops the kept rows of a view, or of one stream in it.
WITH dropped AS (DELETE FROM kept_rows WHERE view = $1 AND ($2 = '' OR stream = $2) RETURNING version)
SELECT count(*) FROM dropped;

-- name: take_lease
-- Takes or renews a lease for $3 seconds; says who has it, until when, and whether that is the caller. A lease that
-- reaches further than that was granted by a clock that was ahead: it is void.
WITH taken AS (
    INSERT INTO leases AS held (name, holder, expires_at)
    VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
     WHERE held.holder = excluded.holder
        OR held.expires_at < clock_timestamp()
        OR held.expires_at > clock_timestamp() + make_interval(secs => $3)
    RETURNING holder, expires_at
)
SELECT holder, expires_at, true AS mine FROM taken
UNION ALL
SELECT holder, expires_at, false FROM leases WHERE name = $1 AND NOT EXISTS (SELECT FROM taken);

-- name: give_up_lease
-- Lets another replica have it at once.
DELETE FROM leases WHERE name = $1 AND holder = $2;

-- name: repair_begin
-- Lets the owner take events out, until the transaction ends with repair_end.
ALTER TABLE events DISABLE TRIGGER insert_only; GRANT DELETE ON events TO CURRENT_USER;

-- name: repair_end
-- History takes inserts only, from now on again.
REVOKE DELETE ON events FROM CURRENT_USER; ALTER TABLE events ENABLE TRIGGER insert_only;

-- name: repair_give_up
-- Keeps aside the events at some positions.
INSERT INTO given_up_events
SELECT e.position, e.stream_type, e.stream_id, e.version, e.event_id, e.type, e.payload, e.metadata, e.partition_key,
       e.tag, e.recorded_at, h.era, now(), e.extra
  FROM events e, log_head h WHERE e.position = ANY ($1::bigint[]);

-- name: repair_chain
-- Says in the chain that the log has another history from a position on.
SELECT cut_chain($1);

-- name: repair_cut
-- Takes out the events from a position on.
DELETE FROM events WHERE position >= $1;

-- name: repair_head
-- The log has another history up to a position.
UPDATE log_head SET position = $1, era = era + 1;

-- name: repair_requests
-- Outcomes of events that have other positions now; of those that are gone, the clients may ask again.
WITH moved AS (SELECT * FROM unnest($2::bigint[], $3::bigint[]) AS m (before, after)),
     gone AS (DELETE FROM requests WHERE position >= $1 AND position NOT IN (SELECT before FROM moved))
UPDATE requests r SET position = m.after FROM moved m WHERE r.position = m.before;

-- name: repair_checkpoints
-- Where consumers have to stand, and the events there that they have handled, where that is known. What they are known to
-- have handled beyond is another event from now on.
INSERT INTO checkpoints AS c (consumer, position, event_position, event_id)
SELECT s.consumer, s.position, CASE WHEN s.event_id IS NOT NULL THEN s.position END, s.event_id
  FROM unnest($1::text[], $2::bigint[], $3::uuid[]) AS s (consumer, position, event_id)
ON CONFLICT (consumer) DO UPDATE SET position = excluded.position,
       event_position = coalesce(excluded.event_position, c.event_position),
       event_id = coalesce(excluded.event_id, CASE WHEN c.event_position <= excluded.position THEN c.event_id END);

-- name: repair_set_back
-- Sets a consumer back from a position. 0.1.0 moves on without noting an event, so none that may be gone stays noted.
UPDATE checkpoints SET position = $3, event_id = CASE WHEN event_position <= $3 THEN event_id END
 WHERE consumer = $1 AND position = $2 RETURNING consumer;

-- name: repair_timers
-- Has the timers of streams found out anew: version 0 says that the row may be wrong.
INSERT INTO timers (stream_type, stream_id, version, due)
SELECT type, id, 0, 'epoch' FROM unnest($1::text[], $2::text[]) AS s (type, id)
ON CONFLICT (stream_id, stream_type) DO UPDATE SET version = 0, due = excluded.due;

-- name: repair_snapshots
-- Forgets the snapshots of streams.
DELETE FROM snapshots s USING unnest($1::text[], $2::text[]) AS gone (type, id)
 WHERE s.stream_type = gone.type AND s.stream_id = gone.id;

-- name: versions_before
-- The versions of streams before a position.
SELECT stream_type, stream_id, max(version) FROM (
    SELECT e.stream_type, e.stream_id, e.version FROM events e WHERE e.position < $1
    UNION ALL
    SELECT a.stream_type, a.stream_id, a.version FROM archived_streams a
) AS before
  JOIN unnest($2::text[], $3::text[]) AS s (type, id) ON stream_type = s.type AND stream_id = s.id
 GROUP BY stream_type, stream_id;

-- name: followers
-- The consumers of a log: where they stand, and the last event that each is known to have handled.
SELECT consumer, position, event_position, event_id FROM checkpoints 
 WHERE right(consumer, length($1::text) + 1) = '.' || $1;

-- name: sweep_requests
-- Forgets up to $2 outcomes of requests that are older than $1 by the server's clock, the oldest first; gives how many.
WITH old AS (
    SELECT request_id FROM requests WHERE recorded_at < clock_timestamp() - $1::interval
     ORDER BY recorded_at LIMIT $2 FOR UPDATE SKIP LOCKED
), swept AS (
    DELETE FROM requests r USING old WHERE r.request_id = old.request_id RETURNING r.request_id
)
SELECT count(*) FROM swept;

-- name: clock
-- What time it is.
SELECT clock_timestamp();

-- name: identity
-- Whose log this is, where it is, and what it is called; the column of that is younger than the table.
SELECT installation, log_id, current_database() || coalesce('/' || nullif(current_setting('twinlog.schema', true), ''), ''), to_jsonb(i) ->> 'log'
  FROM log_identity AS i;

-- name: hidden_logs
-- Where the logs are that sessions would find by default, if their search_path led there.
SELECT n.nspname::text, quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = 'log_identity' AND n.nspname IN ('public', session_user)
   AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT');

-- name: identify
-- Says whose log this is, unless it is said already.
INSERT INTO log_identity (installation) VALUES ($1) ON CONFLICT DO NOTHING;

-- name: name_log
-- Says what the log is called, unless it is said already.
UPDATE log_identity SET log = $1 WHERE log IS NULL;

-- name: server_id
-- The number that a cluster of databases got when it was made; its replicas keep it.
SELECT system_identifier FROM pg_control_system();

-- name: saga_instances_rows
-- The rows of the list of sagas to fold on.
SELECT stream, saga, saga_id, subject, version, status, reason, started_position, started_at, updated_at
  FROM saga_instances WHERE stream = ANY ($1::text[]);

-- name: saga_instances_upsert
-- Stores folded rows of the list of sagas.
INSERT INTO saga_instances SELECT * FROM unnest($1::saga_instances[])
ON CONFLICT (stream) DO UPDATE
   SET status = excluded.status, reason = excluded.reason, updated_at = excluded.updated_at;

-- name: saga_instances_page
-- A page of sagas, newest first.
SELECT stream, saga, saga_id, subject, version, status, reason, started_position, started_at, updated_at
  FROM saga_instances
 WHERE status = ANY ($1::smallint[]) AND started_at <= $2 AND ($3 = '' OR saga = $3) AND ($4 = '' OR subject = $4)
   AND started_position < $5
 ORDER BY started_position DESC LIMIT $6;

-- name: saga_instances_oldest
-- A page of sagas, oldest first.
SELECT stream, saga, saga_id, subject, version, status, reason, started_position, started_at, updated_at
  FROM saga_instances
 WHERE status = ANY ($1::smallint[]) AND started_at <= $2 AND ($3 = '' OR saga = $3) AND ($4 = '' OR subject = $4)
   AND started_position > $5
 ORDER BY started_position LIMIT $6;

-- name: saga_instances_chosen
-- Sagas to intervene in, oldest first, and how many there are.
SELECT saga, saga_id, count(*) OVER () FROM saga_instances
 WHERE status = ANY ($1::smallint[]) AND started_at <= $2 AND ($3 = '' OR saga = $3) AND ($4 = '' OR subject = $4)
 ORDER BY started_position LIMIT $5;

-- name: saga_instances_census
-- How many sagas have some statuses, by table, and since when the oldest runs.
SELECT saga, status, count(*), min(started_at) FROM saga_instances
 WHERE status = ANY ($1::smallint[]) GROUP BY saga, status;

-- name: saga_tables
-- The tables of a saga's versions.
SELECT version, shape, fingerprint, retired FROM saga_tables WHERE saga = $1;

-- name: keep_saga_tables
-- Keeps the tables of versions that have none yet; those that are in use again are not retired.
INSERT INTO saga_tables AS kept (saga, version, shape, fingerprint)
SELECT $1, version, shape::jsonb, fingerprint
  FROM unnest($2::integer[], $3::text[], $4::text[]) AS given (version, shape, fingerprint)
ON CONFLICT (saga, version) DO UPDATE SET retired = false WHERE kept.retired;

-- name: retire_saga_tables
-- No instance needs these versions.
UPDATE saga_tables SET retired = true WHERE saga = $1 AND version = ANY ($2::integer[]);

-- name: live_sagas
-- The first event of every instance of a saga whose last event does not end it.
SELECT s.stream_id, s.payload FROM events s
 WHERE s.stream_type = $1 AND s.type = 'twinlog.v1.SagaStarted' AND (
       SELECT e.type FROM events e WHERE e.stream_type = s.stream_type AND e.stream_id = s.stream_id
        ORDER BY e.version DESC LIMIT 1
       ) NOT IN ('twinlog.v1.SagaCompleted', 'twinlog.v1.SagaCompensated')
 ORDER BY s.position;

-- name: declarations
-- What programs of this log have declared.
SELECT kind, name, form, retired FROM declarations;

-- name: keep_declarations
-- Keeps what is declared. What is kept already grows, and is not retired any more; `anew`: it takes the place of that.
INSERT INTO declarations AS kept (kind, name, form)
SELECT kind, name, form::jsonb FROM unnest($1::text[], $2::text[], $3::text[]) AS given (kind, name, form)
ON CONFLICT (kind, name) DO UPDATE SET retired = false,
    form = CASE WHEN $4 THEN excluded.form ELSE excluded.form || kept.form END;

-- name: retire_declarations
-- A program does without these.
UPDATE declarations SET retired = true
 WHERE (kind, name) IN (SELECT * FROM unnest($1::text[], $2::text[]));

-- name: stored_of
-- The types of streams, and of events in them, that are stored of some; it reads the whole log. Of what is in an archive
-- nothing is known: then there is a row of empty names.
SELECT stream_type, type FROM events WHERE stream_type = ANY ($1::text[]) OR type = ANY ($2::text[]) GROUP BY 1, 2
 UNION SELECT '', '' FROM archived_ranges;

-- name: columns
-- The columns of a view's table, in their order, with their types, and those that a start has kept of them.
SELECT attname::text, format_type(atttypid, atttypmod), d.form ->> ('column ' || attname)
FROM pg_attribute LEFT JOIN declarations d ON d.kind = 'view' AND d.name = $1
WHERE attrelid = to_regclass(quote_ident($1)) AND attnum > 0 AND NOT attisdropped ORDER BY attnum;

-- name: columns_of_tables
-- The columns of all tables, with their types.
SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p');

-- name: view_builds
-- All builds of all views.
SELECT view, build, version, home, live, dropped, begun_at, live_since, live_until, share, may_lack
  FROM view_builds ORDER BY view, build;

-- name: kept_build
-- A build of a view that is kept; number 0: its home.
SELECT view, build, version, home, live, dropped, begun_at, live_since, live_until, share, may_lack
  FROM view_builds
 WHERE view = $1 AND NOT dropped AND (build = $2 OR $2 = 0 AND home);

-- name: home_table
-- The table of a name that a migration made, as SQL, also where that of another build is found first.
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = $1 AND n.nspname = ANY (current_schemas(false)) AND n.nspname !~ '@[0-9]+$'
 ORDER BY array_position(current_schemas(false), n.nspname) LIMIT 1;

-- name: lock_builds
-- Has others wait who begin, switch or drop builds, until the transaction ends; also for views of the same name of
-- another log of this database, so that no two builds take one number.
SELECT pg_advisory_xact_lock(hashtextextended('twinlog.builds.' || $1::text, 0));

-- name: settle_home
-- Stores what the home of a view is, unless it is known.
INSERT INTO view_builds (view, build, version, home, live, live_since)
SELECT $1, 1, $2, true, true, clock_timestamp()
 WHERE NOT EXISTS (SELECT FROM view_builds WHERE view = $1)
ON CONFLICT DO NOTHING;

-- name: build_under_way
-- A build that was begun and never read.
SELECT build FROM view_builds WHERE view = $1 AND NOT live AND live_until IS NULL AND NOT dropped LIMIT 1;

-- name: begin_build
-- Numbers a new build, beyond those of a view of the same name of another log of this database.
INSERT INTO view_builds (view, build, version, home, live, share)
SELECT $1, 1 + greatest(max(build), (
         SELECT max(substr(nspname, length($1) + 2)::integer) FROM pg_namespace
          WHERE starts_with(nspname::text, $1 || '@') AND substr(nspname, length($1) + 2) ~ '^[0-9]{1,9}$')),
       $2, false, false, $3 FROM view_builds WHERE view = $1
RETURNING view, build, version, home, live, dropped, begun_at, live_since, live_until, share, may_lack;

-- name: lock_checkpoints
-- Where consumers stand; they stay there until the transaction ends.
SELECT consumer, position FROM checkpoints WHERE consumer = ANY ($1::text[]) ORDER BY consumer FOR UPDATE;

-- name: versions_of_letters
-- The versions of consumers' dead letters; without a row there are none.
SELECT stream_id, max(version) FROM (
    SELECT stream_id, version FROM events WHERE stream_type = 'dead_letters' AND stream_id = ANY ($1::text[])
    UNION ALL
    SELECT stream_id, version FROM archived_streams WHERE stream_type = 'dead_letters' AND stream_id = ANY ($1::text[])
) AS found GROUP BY stream_id;

-- name: leave_build
-- A build is left, if it is the live one.
UPDATE view_builds SET live = false, live_until = clock_timestamp() WHERE view = $1 AND build = $2 AND live
RETURNING build;

-- name: enter_build
-- A build becomes the live one.
UPDATE view_builds SET live = true, live_since = clock_timestamp(), may_lack = $3
 WHERE view = $1 AND build = $2 AND NOT dropped RETURNING build;

-- name: build_kept_for
-- For how many seconds a build is still kept, of those since queries left it. Where a clock that was ahead has noted
-- that, they count from now.
UPDATE view_builds SET live_until = least(live_until, clock_timestamp())
 WHERE view = $1 AND build = $2 AND NOT live AND live_until IS NOT NULL
RETURNING extract(epoch FROM live_until - clock_timestamp())::float8 + $3;

-- name: builds_rule_out_older
-- Has programs of release 0.1 refuse to start while a view has another build than its home: they end where they find a
-- checkpoint of a consumer that is not theirs.
UPDATE schema_migrations SET breaking = others
  FROM (SELECT EXISTS (SELECT FROM view_builds WHERE NOT home AND NOT dropped) AS others) AS builds
 WHERE package = 'twinlog.sql' AND version = 10 AND breaking <> others;

-- name: older_sessions
-- Sessions of programs of release 0.1, by what they say every other second.
SELECT concat_ws(' ', 'pid', pid, 'from ' || host(client_addr)) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND state_change > clock_timestamp() - interval '10 s'
   AND (query LIKE 'INSERT INTO leases AS held%' OR query LIKE '%SELECT move_checkpoint($1, $2, $3)');

-- name: drop_build
-- Notes that nobody keeps a build, where it is not live. Its number is never used again: its dead letters have it.
UPDATE view_builds SET dropped = true WHERE view = $1 AND build = $2 AND NOT live AND NOT dropped RETURNING build;

-- name: forget_checkpoints
-- Forgets where consumers stand.
DELETE FROM checkpoints WHERE consumer = ANY ($1::text[]);

-- name: columns_of
-- The columns of a table, in their order, whether each is of its primary key, and its type.
SELECT a.attname::text, coalesce(a.attnum = ANY (i.indkey), false), format_type(a.atttypid, NULL)
  FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
 WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum;

-- name: same_table
-- Whether a table that this transaction has read is the one of its moment: to empty one is to replace it for everybody.
SELECT relfilenode = pg_relation_filenode(oid) FROM pg_class WHERE oid = $1::regclass;

-- name: estimated_rows
-- About how many rows a table has, as the planner has it.
SELECT reltuples::bigint FROM pg_class WHERE oid = $1::regclass;

-- name: note_advance
-- Notes which rows of a view $4 were changed with a checkpoint's advance. One from before the checkpoint was set back gives
-- way.
INSERT INTO view_changes (consumer, view, position, part, after, keys, fields, before)
VALUES ($1, $4, $3, 0, $2, $5::text[], $6::text[], $7::text[])
ON CONFLICT (consumer, view, position, part) DO UPDATE
   SET after = excluded.after, ordinal = DEFAULT, keys = excluded.keys, fields = excluded.fields,
       before = excluded.before, recorded_at = excluded.recorded_at;

-- name: note_replay
-- Notes which rows of a view were changed where the checkpoint stayed.
INSERT INTO view_changes (consumer, view, position, part, after, keys, fields, before)
SELECT $1, $3, $2, 1 + coalesce(max(part), 0), $2, $4, $5, $6
  FROM view_changes WHERE consumer = $1 AND view = $3 AND position = $2;

-- name: view_marks
-- Where consumers are with a view.
SELECT consumer, position, coalesce((
         SELECT max(c.part) FROM view_changes c
          WHERE c.consumer = p.consumer AND c.view = $1 AND c.position = p.position), 0)
  FROM checkpoints p WHERE consumer = ANY ($2::text[]);

-- name: view_notes
-- What a consumer changed of a view after a mark and before another one, newest first.
SELECT position, part, after, ordinal, keys, fields, before FROM view_changes
 WHERE view = $1 AND consumer = $2 AND (position, part) > ($3::bigint, $4::integer)
   AND (position, part) < ($5::bigint, $6::integer)
 ORDER BY position DESC, part DESC LIMIT $7;

-- name: forget_view_notes
-- Drops what is older than some time, whole positions of each consumer and view, from the oldest on.
DELETE FROM view_changes v
 USING (SELECT consumer, view, max(position) AS upto FROM view_changes
         WHERE recorded_at < clock_timestamp() - $1::interval GROUP BY consumer, view) AS old
 WHERE v.consumer = old.consumer AND v.view = old.view AND v.position < old.upto;

-- name: note_crossing
-- Notes where watches go on that were told from a build which is dropped now.
INSERT INTO view_crossings (view, build, marks, entered, reached, keys, fields, before)
VALUES ($1, $2, $3::jsonb, $4, $5::jsonb, $6::text[], $7::text[], $8::text[]) ON CONFLICT DO NOTHING;

-- name: crossing
-- Where watches of a build go on that was dropped.
SELECT build, marks, entered, reached, keys, fields, before FROM view_crossings WHERE view = $1 AND build = $2;

-- name: forget_crossings
-- Drops what is older than some time: no token from before has the notes that it needs.
DELETE FROM view_crossings WHERE recorded_at < clock_timestamp() - $1::interval;

-- name: adopt_checkpoint
-- Has a consumer go on where it stood in the log that this one was imported from.
INSERT INTO checkpoints (consumer, position, event_position, event_id)
SELECT consumer, position, event_position, event_id FROM imported_checkpoints WHERE consumer = $1
ON CONFLICT (consumer) DO NOTHING RETURNING position;

-- name: import_unfinished
-- Up to where an import has come that has not reached its end.
SELECT current_database() || coalesce('/' || nullif(current_setting('twinlog.schema', true), ''), ''), position FROM log_imports WHERE finished_at IS NULL;

-- name: import_state
-- The import that this log was filled by.
SELECT file_id, position, finished_at IS NOT NULL FROM log_imports;

-- name: import_begin
-- An import begins, unless another one has.
INSERT INTO log_imports (file_id, position) VALUES ($1, 0) ON CONFLICT DO NOTHING RETURNING position;

-- name: import_advance
-- An import has come further, unless another one of the same file has.
UPDATE log_imports SET position = $2 WHERE position = $1 AND finished_at IS NULL RETURNING position;

-- name: import_finish
-- The log is there; whoever knew the empty one looks again.
WITH finished AS (UPDATE log_imports SET finished_at = now()),
     newest AS (SELECT number, hash FROM chain ORDER BY number DESC LIMIT 1)
UPDATE log_head
   SET position = $1, era = greatest(era + 1, $2),
       linked = CASE WHEN EXISTS (SELECT FROM newest) OR EXISTS (SELECT FROM unlinked) THEN $1 ELSE 0::bigint END,
       links = coalesce((SELECT number FROM newest), 0), hash = coalesce((SELECT n.hash FROM newest n), log_head.hash);

-- name: import_refusals
-- What keeps a log from being filled: its head, whether there is anything in it, and who is at work on it. A lease lasts
-- seconds: one that reaches further was granted by a clock that was ahead.
SELECT (SELECT position FROM log_head), EXISTS (SELECT FROM events), EXISTS (SELECT FROM checkpoints),
       EXISTS (SELECT FROM requests),
       (SELECT min(holder) FROM leases
         WHERE expires_at BETWEEN clock_timestamp() AND clock_timestamp() + interval '5 min');

-- name: export_requests
-- The outcomes of requests up to a position.
SELECT request_id, fingerprint, reply, position,
       least(greatest(recorded_at, '0001-01-02 00:00Z'), '9999-12-30 00:00Z') AS recorded_at
  FROM requests WHERE position <= $1;

-- name: export_timers
-- Every timer.
SELECT stream_type, stream_id, version, least(greatest(due, '0001-01-02 00:00Z'), '9999-12-30 00:00Z') AS due FROM timers;

-- name: export_checkpoints
-- Where every consumer stands, or stood in the log that this one was imported from.
SELECT consumer, position, event_position, event_id FROM checkpoints
UNION ALL
SELECT consumer, position, event_position, event_id FROM imported_checkpoints i
 WHERE NOT EXISTS (SELECT FROM checkpoints c WHERE c.consumer = i.consumer);

-- name: export_saga_tables
-- The tables of all sagas.
SELECT saga, version, fingerprint, shape::text, retired FROM saga_tables;

-- name: archived_at
-- The range of the archive that has a position.
SELECT first, last, file, bytes, digest, frame_offsets, frame_firsts, frame_digests FROM archived_ranges
 WHERE first <= $1 ORDER BY first DESC LIMIT 1;

-- name: archived_upto
-- Up to which position events are in the archive.
SELECT coalesce(max(last), 0) FROM archived_ranges;

-- name: archived_ranges
-- Every range of the archive.
SELECT first, last, file, bytes, digest, frame_offsets, frame_firsts, frame_digests FROM archived_ranges ORDER BY first;

-- name: archive_young
-- The first position after another one whose event is not old yet, or has no link in the chain that proves it.
SELECT min(position) FROM (
    (SELECT position FROM events WHERE position > $1 AND recorded_at >= $2 ORDER BY position LIMIT 1)
    UNION ALL
    SELECT first_position FROM unlinked
    UNION ALL
    SELECT linked + 1 FROM log_head WHERE linked < position
) AS young;

-- name: archive_range
-- Notes a range that is in a file.
INSERT INTO archived_ranges (first, last, events, file, bytes, digest, frame_offsets, frame_firsts, frame_digests)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: archive_rules_out_older
-- Has programs refuse to start that know nothing of the archive.
UPDATE schema_migrations SET breaking = true WHERE package = 'twinlog.sql' AND version = 14 AND NOT breaking;

-- name: archive_lock
-- One at a time.
SELECT pg_try_advisory_lock(hashtextextended('twinlog.archive' || coalesce(current_setting('twinlog.schema', true), ''), 0));

-- name: archive_unlock
-- The next.
SELECT pg_advisory_unlock(hashtextextended('twinlog.archive' || coalesce(current_setting('twinlog.schema', true), ''), 0));

-- name: archive_left
-- Positions in the archive of which the table has events still, in steps of $1, each with the end of its range.
SELECT DISTINCT r.first + (e.position - r.first) / $1 * $1 AS first,
       least(r.last, r.first + (e.position - r.first) / $1 * $1 + $1 - 1) AS last
  FROM archived_ranges r JOIN events e ON e.position BETWEEN r.first AND r.last ORDER BY 1;

-- name: remove_archived
-- See the function.
SELECT remove_archived($1, $2, $3, $4);

-- name: links
-- Links of the chain after a number, in order.
SELECT number, kind, first_position, last_position, head, digest, marks, hash
  FROM chain WHERE number > $1 ORDER BY number LIMIT $2;

-- name: newest_link
-- The last link of the chain.
SELECT number, kind, first_position, last_position, head, digest, marks, hash
  FROM chain ORDER BY number DESC LIMIT 1;

-- name: notes_newest
-- Whether the head of the log stands at the last link of the chain; no row where there is none.
SELECT h.links = c.number AND h.hash = c.hash
  FROM log_head h, (SELECT number, hash FROM chain ORDER BY number DESC LIMIT 1) AS c;

-- name: chain_end
-- What the head of the log notes of its chain.
SELECT links, hash, linked FROM log_head;

-- name: note_lacking
-- Has events that no link covers sealed.
INSERT INTO unlinked SELECT * FROM unnest($1::bigint[], $2::bigint[]) ON CONFLICT DO NOTHING;

-- name: begin_chain
-- Forgets the chain, so that every event is to be sealed. Takes the owner.
ALTER TABLE chain DISABLE TRIGGER insert_only; GRANT DELETE ON chain TO CURRENT_USER; DELETE FROM chain; REVOKE DELETE
   ON chain FROM CURRENT_USER; ALTER TABLE chain ENABLE TRIGGER insert_only; DELETE FROM unlinked; UPDATE log_head
   SET linked = 0, links = 0, hash = decode(repeat('00', 32), 'hex'); SELECT note_unlinked();

-- name: cuts
-- The links that say where repairs cut the log.
SELECT number, kind, first_position, last_position, head, digest, marks, hash
  FROM chain WHERE kind = 3 ORDER BY number;

-- name: unlinked
-- The ranges of positions without a link, as far as they are known to be without.
SELECT first_position, last_position FROM unlinked
UNION ALL SELECT linked + 1, position FROM log_head WHERE linked < position ORDER BY 1;

-- name: next_unlinked
-- The first range of positions without a link, to be sealed by this transaction alone.
SELECT first_position, last_position FROM unlinked ORDER BY first_position LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: behind
-- Whether something was appended without a link and without being noted as such.
SELECT linked < position FROM log_head;

-- name: note_unlinked
-- Notes what was appended without a link.
SELECT note_unlinked();

-- name: seal_events
-- Links events that were appended without a link.
SELECT seal_events($1, $2, $3, $4);

-- name: is_archived
-- Whether events of a stream are in the archive only.
SELECT EXISTS (SELECT FROM archived_streams WHERE stream_type = $1 AND stream_id = $2);

-- name: trimmed
-- Up to where the stream may be empty.
SELECT position FROM trimmed_stream;

-- name: trim
-- Lets the stream be empty up to a position of the archive, or have all.
INSERT INTO trimmed_stream (position) SELECT least($1, coalesce(max(last), 0)) FROM archived_ranges
ON CONFLICT (single) DO UPDATE SET position = excluded.position RETURNING position;

-- name: note_erased
-- Notes that persons are erased.
INSERT INTO erased_subjects (subject) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING;

-- name: erased
-- Who is erased.
SELECT subject FROM erased_subjects;

-- name: export_erased
-- Who is erased, and since when.
SELECT subject, erased_at FROM erased_subjects;
