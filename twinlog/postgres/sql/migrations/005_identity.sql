-- Whose log this is: said once, by the first process that opens it (docs/operations.md, "Neighbors").

CREATE TABLE log_identity (
    single       boolean PRIMARY KEY DEFAULT true CHECK (single),
    installation text NOT NULL,
    log_id       uuid NOT NULL DEFAULT gen_random_uuid()
);
