-- Whether it was confirmed, when queries began to read a build, that it may lack events which it has set aside.

ALTER TABLE view_builds ADD COLUMN may_lack boolean NOT NULL DEFAULT false;
