-- The pieces on a board.
CREATE TABLE pieces (
    key     text PRIMARY KEY,
    color   text NOT NULL,
    version integer NOT NULL
);
