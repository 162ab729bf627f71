-- What page tokens are signed with: random, made once, the same for every replica.

CREATE TABLE page_token_secret (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    secret bytea NOT NULL
);
INSERT INTO page_token_secret (secret)
SELECT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));
