-- Proof of the past: a link for each batch, whose hash depends on everything that was linked before. How a link is made
-- is said in docs/reference/proof.md.

CREATE TABLE chain (
    number         bigint PRIMARY KEY,
    kind           smallint NOT NULL,  -- 1: made by the append; 2: sealed later; 3: a repair cut the log here
    first_position bigint NOT NULL,
    last_position  bigint NOT NULL,
    head           bigint NOT NULL,    -- the position of the log when the link was made
    digest         bytea NOT NULL,     -- of the events
    marks          bytea NOT NULL,     -- 8 bytes of each event's own digest: they tell which event was changed
    hash           bytea NOT NULL      -- of the link before and of all of this one but the marks
);
ALTER TABLE chain ALTER COLUMN marks SET STORAGE EXTERNAL;  -- compressing them would be in vain

CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON chain
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
REVOKE UPDATE, DELETE, TRUNCATE ON chain FROM PUBLIC, CURRENT_USER;

-- `linked`: every position up to here has a link, or is among the unlinked; programs from before leave it behind
-- `position`. `links` and `hash` are those of the last link: an append need not look for it.
ALTER TABLE log_head
    ADD COLUMN linked bigint NOT NULL DEFAULT 0,
    ADD COLUMN links  bigint NOT NULL DEFAULT 0,
    ADD COLUMN hash   bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex');

-- Ranges of positions that wait to be sealed.
CREATE TABLE unlinked (
    first_position bigint PRIMARY KEY,
    last_position  bigint NOT NULL
);
