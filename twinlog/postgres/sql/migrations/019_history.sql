-- Persons whose keys were destroyed. The keys lie in a database of their own: restored from an older backup, it has them
-- again, and they are destroyed again.
CREATE TABLE erased_subjects (
    subject   text PRIMARY KEY,
    erased_at timestamptz NOT NULL DEFAULT now()
);
