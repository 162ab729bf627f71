-- Finds the outcomes of requests that are past their time. Those of one batch share an entry, so it stays small.

CREATE INDEX requests_recorded_at ON requests (recorded_at);
