CREATE TABLE booked (
    room_id    text PRIMARY KEY,
    booking_id text NOT NULL,
    rate       real NOT NULL
);
