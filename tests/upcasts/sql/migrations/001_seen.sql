CREATE TABLE seen (stream text PRIMARY KEY, numbers text NOT NULL);
