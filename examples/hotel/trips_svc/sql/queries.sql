-- name: trips_rows
-- The rows to fold on, their columns in the order of TripRow.
SELECT trip_id, guest, room_id, state, cents, reason FROM trips WHERE trip_id = ANY ($1::text[]);

-- name: trips_upsert
-- Stores folded rows.
INSERT INTO trips SELECT * FROM unnest($1::trips[])
ON CONFLICT (trip_id) DO UPDATE SET
    guest = excluded.guest, room_id = excluded.room_id, state = excluded.state, cents = excluded.cents,
    reason = excluded.reason;
