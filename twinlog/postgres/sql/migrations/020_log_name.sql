-- What the log is called, said by the first service that opens it: a service with another log is refused there.
ALTER TABLE log_identity ADD COLUMN log text;
