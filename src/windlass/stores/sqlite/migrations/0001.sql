-- Schema 1. Times are whole microseconds since 1970 (UTC); statuses are 0 scheduled, 1 pending,
-- 2 processing, 3 completed, 4 failed, 5 cancelled; sets of statuses are bit masks of these.

-- What the file says about itself: 'min_code' is the oldest schema number whose code may still write
-- here, 'seq' the highest job number that was ever pruned, so that no number is given twice.
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- A queue and a type, with the number of jobs in each status: kept by the code within the
-- transaction that moves jobs, so that counting never scans.
CREATE TABLE lanes (
  id         INTEGER PRIMARY KEY,
  queue      TEXT NOT NULL,
  type       TEXT NOT NULL,
  scheduled  INTEGER NOT NULL DEFAULT 0,
  pending    INTEGER NOT NULL DEFAULT 0,
  processing INTEGER NOT NULL DEFAULT 0,
  completed  INTEGER NOT NULL DEFAULT 0,
  failed     INTEGER NOT NULL DEFAULT 0,
  cancelled  INTEGER NOT NULL DEFAULT 0,
  UNIQUE (queue, type)
);

CREATE TABLE jobs (
  seq              INTEGER PRIMARY KEY,
  id               TEXT NOT NULL UNIQUE,
  lane             INTEGER NOT NULL,
  status           INTEGER NOT NULL,
  rank             INTEGER NOT NULL, -- ready_at - 60 s x priority: the order of claiming
  ready_at         INTEGER NOT NULL,
  created_at       INTEGER NOT NULL,
  started_at       INTEGER,
  finished_at      INTEGER,
  expires_at       INTEGER,
  priority         INTEGER NOT NULL,
  max_attempts     INTEGER NOT NULL,
  timeout          INTEGER,
  failures         INTEGER NOT NULL DEFAULT 0,
  crashes          INTEGER NOT NULL DEFAULT 0,
  charges          INTEGER NOT NULL DEFAULT 0,
  fence            INTEGER NOT NULL DEFAULT 0,
  generation       INTEGER NOT NULL DEFAULT 0,
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  lost_fails       INTEGER NOT NULL DEFAULT 0, -- on_lost = 'fail'
  keyed            INTEGER NOT NULL DEFAULT 0, -- the caller chose the id
  unique_within    INTEGER, -- statuses in which the key counts
  unique_name      TEXT,    -- the key that the job asked for
  unique_key       TEXT,    -- the same while it holds it, else NULL
  body             TEXT,    -- digest of what was asked, where the caller chose the id
  token            TEXT,
  worker           TEXT,
  progress         REAL,
  note             TEXT,
  reason           TEXT,
  tags             TEXT, -- JSON, like meta, errors, payload and result
  meta             TEXT,
  errors           TEXT,
  result           TEXT,
  payload          TEXT NOT NULL
);

-- Partial indexes: a job stands only in those of its status, so that kept jobs cost running ones
-- nothing. The claim's carry what it asks, so that it reads no row before it has chosen; the others
-- carry the lane, so that the jobs of a small queue are found without a look at those of large ones.
CREATE INDEX jobs_pending ON jobs (lane, rank, seq, expires_at) WHERE status = 1 AND crashes < 2;
CREATE INDEX jobs_suspect ON jobs (lane, rank, seq, expires_at) WHERE status = 1 AND crashes >= 2;
CREATE INDEX jobs_oldest ON jobs (lane, ready_at) WHERE status = 1;
CREATE INDEX jobs_scheduled ON jobs (ready_at, lane) WHERE status = 0;
CREATE INDEX jobs_processing ON jobs (worker, lane) WHERE status = 2;
CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE expires_at IS NOT NULL AND status < 2;
CREATE INDEX jobs_final ON jobs (status, keyed, finished_at, lane) WHERE status > 2;
CREATE UNIQUE INDEX jobs_unique ON jobs (unique_key) WHERE unique_key IS NOT NULL;

-- What running tasks wrote, numbered from 1 within each job.
CREATE TABLE logs (
  job     INTEGER NOT NULL,
  seq     INTEGER NOT NULL,
  at      INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  level   TEXT NOT NULL,
  message TEXT NOT NULL,
  PRIMARY KEY (job, seq)
) WITHOUT ROWID;

-- Workers by the order in which they registered; `info` is what they last said of themselves.
CREATE TABLE workers (
  number      INTEGER PRIMARY KEY,
  id          TEXT NOT NULL UNIQUE,
  beat        INTEGER NOT NULL,
  lease_until INTEGER NOT NULL,
  seen_at     INTEGER NOT NULL,
  started_at  INTEGER NOT NULL,
  dead        INTEGER NOT NULL DEFAULT 0,
  info        TEXT NOT NULL
);

-- The pause switch of each queue that ever was paused.
CREATE TABLE queues (name TEXT PRIMARY KEY, paused INTEGER NOT NULL, reason TEXT) WITHOUT ROWID;

-- Limits by what they limit; `tat` is the accumulated charge of the rate (see windlass.limits).
CREATE TABLE limits (
  scope       TEXT NOT NULL,
  name        TEXT NOT NULL,
  concurrency INTEGER,
  count       INTEGER,
  period      REAL,
  burst       INTEGER,
  capacity    INTEGER,
  operator    INTEGER NOT NULL,
  tat         REAL NOT NULL DEFAULT 0,
  PRIMARY KEY (scope, name)
) WITHOUT ROWID;

INSERT INTO meta VALUES ('min_code', 1), ('seq', 0);
