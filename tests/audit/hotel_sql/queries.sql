-- name: booked_rows
-- The rows to fold on.
SELECT room_id, booking_id, rate FROM booked WHERE room_id = ANY ($1::text[]);

-- name: booked_upsert
-- Stores folded rows.
INSERT INTO booked SELECT * FROM unnest($1::booked[])
ON CONFLICT (room_id) DO UPDATE SET booking_id = excluded.booking_id, rate = excluded.rate;

-- name: booked_delete
-- Removes rows.
DELETE FROM booked WHERE room_id = ANY ($1::text[]);
