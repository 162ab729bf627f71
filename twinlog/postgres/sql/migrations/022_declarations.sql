-- What programs of this log have declared: a later one that would read stored events as something else, or not find
-- them any more, is refused at its start.

CREATE TABLE declarations (
    -- 'message' or 'enum', 'aggregate', 'policies', 'effects'.
    kind    text NOT NULL,
    name    text NOT NULL,
    -- What is declared of it, a flat object of texts: all that any program has known.
    form    jsonb NOT NULL,
    -- A program that brought nothing in its place did without it.
    retired boolean NOT NULL DEFAULT false,
    kept_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, name)
);
