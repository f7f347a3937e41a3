-- The statements of the SQLite store, one named block each. `$name` includes another block.
--
-- sqlite3 gives the interpreter lock away at every step, and may wait 5 ms for it when the event loop
-- is busy. So whatever concerns many jobs takes them as one JSON text and answers one JSON text: one
-- step, however many rows.

-- name: brief
-- A job as JSON in the words of windlass.job.Job, as a claim hands it out. Microseconds become
-- seconds by writing "e-6" behind them: exact, and much cheaper than formatting.
'{"seq":'||j.seq||',"id":'||json_quote(j.id)||',"type":'||json_quote(l.type)
||',"queue":'||json_quote(l.queue)||',"status":"'||CASE j.status
  WHEN 0 THEN 'scheduled' WHEN 1 THEN 'pending' WHEN 2 THEN 'processing'
  WHEN 3 THEN 'completed' WHEN 4 THEN 'failed' ELSE 'cancelled' END
||'","priority":'||j.priority||',"created_at":'||j.created_at||'e-6,"ready_at":'||j.ready_at||'e-6'
||ifnull(',"started_at":'||j.started_at||'e-6','')||',"failures":'||j.failures
||',"max_attempts":'||j.max_attempts||',"crashes":'||j.crashes||',"charges":'||j.charges
||',"fence":'||j.fence||',"generation":'||j.generation
||ifnull(',"token":'||nullif(json_quote(j.token),'null'),'')
||ifnull(',"worker":'||nullif(json_quote(j.worker),'null'),'')
||ifnull(',"timeout":'||j.timeout||'e-6','')||ifnull(',"expires_at":'||j.expires_at||'e-6','')
||ifnull(',"unique_key":'||nullif(json_quote(j.unique_key),'null'),'')
||CASE j.lost_fails WHEN 1 THEN ',"on_lost":"fail"' ELSE '' END
||ifnull(',"tags":'||j.tags,'')||ifnull(',"meta":'||j.meta,'')||',"payload":'||j.payload

-- name: whole
-- All of it, as [job] or [job, result]: the decoder tells apart no result and null only so.
'['||$brief
||ifnull(',"finished_at":'||j.finished_at||'e-6','')
||CASE j.cancel_requested WHEN 1 THEN ',"cancel_requested":true' ELSE '' END
||CASE WHEN j.progress IS NULL THEN '' ELSE ',"progress":'||printf('%!.17g',j.progress) END
||ifnull(',"note":'||nullif(json_quote(j.note),'null'),'')
||ifnull(',"reason":'||nullif(json_quote(j.reason),'null'),'')||ifnull(',"errors":'||j.errors,'')
||'}'||ifnull(','||j.result,'')||']'

-- name: period
-- A number with all its digits: on its own, JSON would get 15 of them.
json(iif(period IS NULL, 'null', printf('%!.17g', period)))

-- name: tat
-- As period.
json(printf('%!.17g', tat))

-- name: book
-- All that is kept in memory between transactions, as one JSON text.
SELECT json_object(
  'lanes', (SELECT json_group_array(json_array(
    id, queue, type, json_array(scheduled, pending, processing, completed, failed, cancelled)
  )) FROM lanes),
  'limits', (SELECT json_group_array(json_array(
    scope, name, concurrency, count, $period, burst, capacity, operator, $tat
  )) FROM limits),
  'queues', (SELECT json_group_array(json_array(name, paused, reason)) FROM queues),
  'workers', (SELECT json_group_array(id) FROM workers WHERE dead = 0),
  'seq', max(
    ifnull((SELECT max(seq) FROM jobs), 0), (SELECT value FROM meta WHERE key = 'seq')
  )
)

-- name: add_lane
-- ?1 queue, ?2 type.
INSERT INTO lanes (queue, type) VALUES (?1, ?2)

-- name: count
-- The counts of a lane as they now are; the last parameter is its id.
UPDATE lanes
SET scheduled = ?, pending = ?, processing = ?, completed = ?, failed = ?, cancelled = ?
WHERE id = ?

-- name: charge
-- What a rate has been charged so far.
UPDATE limits SET tat = ? WHERE scope = ? AND name = ?

-- name: insert
-- New jobs of one plan: the code repeats the row of values, with the job's own seq, id and payload
-- in it, so that what they share is bound once.
INSERT INTO jobs (
  seq, id, lane, status, rank, ready_at, created_at, expires_at, priority, max_attempts, timeout,
  lost_fails, tags, meta, keyed, unique_within, unique_name, unique_key, body, payload
) VALUES

-- name: standing
-- The jobs that stand under these ids (?1) or hold these unique keys (?2), with what an insert
-- compares: [key held, digest, job] each.
SELECT '['||group_concat('['||json_quote(j.unique_key)||','||json_quote(j.body)||','||$whole||']')
||']'
FROM (
  SELECT seq FROM jobs WHERE id IN (SELECT value FROM json_each(?1))
  UNION SELECT seq FROM jobs WHERE unique_key IN (SELECT value FROM json_each(?2))
) AS k CROSS JOIN jobs AS j ON j.seq = k.seq JOIN lanes AS l ON l.id = j.lane

-- name: replace
-- A waiting job gives way to a new one with its key. ?1 id, ?2 now, ?3 reason.
UPDATE jobs SET status = 5, finished_at = ?2, reason = ?3, token = NULL, unique_key = NULL
WHERE id = ?1

-- name: candidates
-- Whom to claim, by rank: [[seq, lane], …]. ?1 lanes, ?2 now, ?3 most of each, ?4 most of
-- all.
SELECT json_group_array(json_array(seq, lane)) FROM (
  SELECT j.seq, j.lane FROM json_each(?1) AS w CROSS JOIN jobs AS j
  WHERE j.seq IN (
    SELECT p.seq FROM jobs AS p INDEXED BY jobs_pending
    WHERE p.lane = w.value AND p.status = 1 AND p.crashes < 2
      AND (p.expires_at IS NULL OR p.expires_at > ?2)
    ORDER BY p.rank, p.seq LIMIT ?3
  )
  ORDER BY j.rank, j.seq LIMIT ?4
)

-- name: suspects
-- The same for quarantine.
SELECT json_group_array(json_array(seq, lane)) FROM (
  SELECT j.seq, j.lane FROM json_each(?1) AS w CROSS JOIN jobs AS j
  WHERE j.seq IN (
    SELECT p.seq FROM jobs AS p INDEXED BY jobs_suspect
    WHERE p.lane = w.value AND p.status = 1 AND p.crashes >= 2
      AND (p.expires_at IS NULL OR p.expires_at > ?2)
    ORDER BY p.rank, p.seq LIMIT ?3
  )
  ORDER BY j.rank, j.seq LIMIT ?4
)

-- name: take
-- Hand out the jobs with these numbers (?1). ?2 token, ?3 worker, ?4 now.
UPDATE jobs SET status = 2, token = ?2, worker = ?3, started_at = ?4, fence = fence + 1,
  progress = NULL, note = NULL, unique_key = iif(unique_within & 4, unique_key, NULL)
WHERE seq IN (SELECT value FROM json_each(?1))

-- name: taken
-- What was handed out, in the order of ?1, for the worker.
SELECT '['||group_concat($brief||'}')||']'
FROM json_each(?1) AS k CROSS JOIN jobs AS j ON j.seq = k.value JOIN lanes AS l ON l.id = j.lane

-- name: complete
-- The common end of a run, many at once: ?1 {id: [token, result], …}, ?2 now. Leaves out what needs
-- a closer look: a lost claim, and a key that counts only from now on.
UPDATE jobs SET status = 3, finished_at = ?2, result = json_extract(a.value, '$[1]'), expires_at = NULL,
  unique_key = iif(unique_within & 8, unique_key, NULL)
FROM json_each(?1) AS a
WHERE jobs.id = a.key AND jobs.status = 2 AND jobs.token = json_extract(a.value, '$[0]')
  AND (unique_name IS NULL OR unique_key IS NOT NULL OR NOT unique_within & 8)

-- name: states
-- The rows with these ids (?1), as far as a change depends on them.
SELECT json_group_array(json_array(
  j.seq, j.id, j.lane, j.status, j.token, j.ready_at, j.priority, j.expires_at, j.failures,
  j.crashes, j.charges, j.cancel_requested, j.unique_within, j.unique_name, j.unique_key, j.errors
))
FROM json_each(?1) AS k CROSS JOIN jobs AS j ON j.id = k.value

-- name: settle
-- Any other end of runs: ?1 is [[seq, …], …], in the order of the assignments.
UPDATE jobs SET
  status = json_extract(a.value, '$[1]'), token = json_extract(a.value, '$[2]'), ready_at = json_extract(a.value, '$[3]'), rank = json_extract(a.value, '$[4]'),
  expires_at = json_extract(a.value, '$[5]'), finished_at = json_extract(a.value, '$[6]'), result = json_extract(a.value, '$[7]'), reason = json_extract(a.value, '$[8]'),
  failures = json_extract(a.value, '$[9]'), crashes = json_extract(a.value, '$[10]'), charges = json_extract(a.value, '$[11]'),
  unique_key = json_extract(a.value, '$[12]'), errors = json_extract(a.value, '$[13]')
FROM json_each(?1) AS a WHERE jobs.seq = json_extract(a.value, '$[0]')

-- name: holder
-- The number of the job that holds this key.
SELECT seq FROM jobs WHERE unique_key = ?1

-- name: held
-- What a worker is believed to be processing, as windlass.store.Held.
SELECT json_group_array(json_object(
  'claim', json_array(id, token), 'cancel_requested', json(iif(cancel_requested, 'true', 'false'))
)) FROM jobs WHERE worker = ?1 AND status = 2

-- name: progress
-- ?1 id, ?2 token, ?3 fraction, ?4 note.
UPDATE jobs SET progress = ifnull(?3, progress), note = ifnull(?4, note)
WHERE id = ?1 AND token = ?2 AND status = 2

-- name: claimed
-- The number of the job, if the claim holds, and of the last line in its log. ?1 id, ?2 token.
SELECT seq, ifnull((SELECT max(logs.seq) FROM logs WHERE logs.job = jobs.seq), 0)
FROM jobs WHERE id = ?1 AND token = ?2 AND status = 2

-- name: write_log
-- A line: job, number, time, attempt, level, message.
INSERT INTO logs (job, seq, at, attempt, level, message) VALUES (?, ?, ?, ?, ?, ?)

-- name: trim_log
-- Drop the lines of a job (?1) up to a number (?2).
DELETE FROM logs WHERE job = ?1 AND seq <= ?2

-- name: worker
-- What is known of a worker.
SELECT dead, beat, lease_until FROM workers WHERE id = ?1

-- name: register
-- ?1 id, ?2 beat, ?3 now, ?4 lease_until, ?5 info.
INSERT INTO workers (id, beat, started_at, seen_at, lease_until, info)
VALUES (?1, ?2, ?3, ?3, ?4, ?5)

-- name: renew
-- As register, for one that is there.
UPDATE workers SET beat = ?2, seen_at = ?3, lease_until = ?4, info = ?5 WHERE id = ?1

-- name: declare_dead
-- Of one worker.
UPDATE workers SET dead = 1 WHERE id = ?1

-- name: forget_worker
-- Of one worker.
DELETE FROM workers WHERE id = ?1

-- name: forget_dead
-- Dead workers that were last seen before ?1 and hold nothing; their ids remain as dead as unknown ones.
DELETE FROM workers WHERE dead = 1 AND seen_at < ?1
  AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.worker = workers.id AND jobs.status = 2)

-- name: orphans
-- Jobs whose worker is dead or unknown. ?1 most.
SELECT '['||group_concat(doc)||']' FROM (
  SELECT $whole AS doc FROM jobs AS j INDEXED BY jobs_processing JOIN lanes AS l ON l.id = j.lane
  WHERE j.status = 2 AND j.worker NOT IN (SELECT id FROM workers WHERE dead = 0)
  LIMIT ?1
)

-- name: expired
-- Waiting jobs past their expiry, as [seq, lane, status, id]. ?1 now, ?2 most.
SELECT json_group_array(json_array(seq, lane, status, id)) FROM (
  SELECT seq, lane, status, id FROM jobs INDEXED BY jobs_expiring
  WHERE expires_at IS NOT NULL AND status < 2 AND expires_at <= ?1
  ORDER BY expires_at LIMIT ?2
)

-- name: due
-- Scheduled jobs whose time has come, in the same form. ?1 now, ?2 most.
SELECT json_group_array(json_array(seq, lane, status, id)) FROM (
  SELECT seq, lane, status, id FROM jobs INDEXED BY jobs_scheduled
  WHERE status = 0 AND ready_at <= ?1
  ORDER BY ready_at, seq LIMIT ?2
)

-- name: cancel
-- Waiting jobs end. ?1 numbers, ?2 now, ?3 reason.
UPDATE jobs SET status = 5, finished_at = ?2, reason = ?3, token = NULL,
  unique_key = iif(unique_within & 32, unique_key, NULL)
WHERE seq IN (SELECT value FROM json_each(?1))

-- name: promote
-- Scheduled jobs become pending. ?1 numbers.
UPDATE jobs SET status = 1, unique_key = iif(unique_within & 2, unique_key, NULL)
WHERE seq IN (SELECT value FROM json_each(?1))

-- name: ahead
-- Expiry and due time of the next waiting jobs, and whether suspects are pending.
SELECT
  (SELECT min(expires_at) FROM jobs INDEXED BY jobs_expiring
   WHERE expires_at IS NOT NULL AND status < 2),
  (SELECT min(ready_at) FROM jobs INDEXED BY jobs_scheduled WHERE status = 0),
  EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_suspect WHERE status = 1 AND crashes >= 2)

-- name: request_cancel
-- Running jobs are asked to end. ?1 numbers.
UPDATE jobs SET cancel_requested = 1 WHERE seq IN (SELECT value FROM json_each(?1))

-- name: revive
-- A final job starts a new generation. ?1 seq, ?2 now, ?3 rank, ?4 the key it takes.
UPDATE jobs SET status = 1, ready_at = ?2, rank = ?3, unique_key = ?4, expires_at = NULL,
  token = NULL, generation = generation + 1, failures = 0, crashes = 0, charges = 0,
  cancel_requested = 0, finished_at = NULL, result = NULL, reason = NULL, progress = NULL,
  note = NULL
WHERE seq = ?1

-- name: hurry
-- A scheduled job need wait no longer. As revive.
UPDATE jobs SET status = 1, ready_at = ?2, rank = ?3, unique_key = ?4, expires_at = NULL,
  token = NULL
WHERE seq = ?1

-- name: prunable
-- Ended jobs kept long enough, as [seq, lane, status, id]. ?1 status, ?2 keyed, ?3 until, ?4 most.
SELECT json_group_array(json_array(seq, lane, status, id)) FROM (
  SELECT seq, lane, status, id FROM jobs INDEXED BY jobs_final
  WHERE status > 2 AND status = ?1 AND keyed = ?2 AND finished_at <= ?3
  ORDER BY finished_at LIMIT ?4
)

-- name: delete_logs
-- Of the jobs with these numbers.
DELETE FROM logs WHERE job IN (SELECT value FROM json_each(?1))

-- name: delete_jobs
-- With these numbers.
DELETE FROM jobs WHERE seq IN (SELECT value FROM json_each(?1))

-- name: raise_seq
-- Numbers up to this one are never given again.
UPDATE meta SET value = max(value, ?1) WHERE key = 'seq'

-- name: pause
-- ?1 queue, ?2 paused, ?3 reason.
INSERT INTO queues (name, paused, reason) VALUES (?1, ?2, ?3)
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, reason = excluded.reason

-- name: set_limit
-- scope, name, concurrency, count, period, burst, capacity, operator, tat.
INSERT OR REPLACE INTO limits
  (scope, name, concurrency, count, period, burst, capacity, operator, tat)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: get
-- The jobs with these ids (?1), whole, in any order.
SELECT '['||group_concat($whole)||']'
FROM json_each(?1) AS k CROSS JOIN jobs AS j ON j.id = k.value JOIN lanes AS l ON l.id = j.lane

-- name: find
-- A page of jobs; the code puts in the conditions and the direction. The last parameter is the limit.
SELECT '['||group_concat(doc)||']' FROM (
  SELECT $whole AS doc FROM jobs AS j JOIN lanes AS l ON l.id = j.lane
  WHERE %where
  ORDER BY j.seq %order LIMIT ?
)

-- name: logs
-- Lines of a job: ?1 id, ?2 beyond this number, ?3 most.
SELECT json_group_array(json_object(
  'seq', seq, 'at', json(at||'e-6'), 'attempt', attempt, 'level', level, 'message', message
)) FROM (
  SELECT logs.* FROM logs
  WHERE logs.job = (SELECT seq FROM jobs WHERE id = ?1) AND logs.seq > ?2
  ORDER BY logs.seq LIMIT ?3
)

-- name: lanes
-- The counts per lane, and since when its oldest pending job waits.
SELECT json_group_array(json_array(
  id, queue, type, json_array(scheduled, pending, processing, completed, failed, cancelled),
  (SELECT min(ready_at) FROM jobs INDEXED BY jobs_oldest WHERE lane = lanes.id AND status = 1)
)) FROM lanes

-- name: settings
-- What people and code have set: {"limits": …, "queues": …}.
SELECT json_object(
  'limits', (SELECT json_group_array(json_array(
    scope, name, concurrency, count, $period, burst, capacity, operator, $tat
  )) FROM limits),
  'queues', (SELECT json_group_array(json_array(name, paused, reason)) FROM queues)
)

-- name: workers
-- The living: [info, started_at, seen_at, lease_until] each.
SELECT json_group_array(json_array(json(info), started_at, seen_at, lease_until)) FROM (
  SELECT * FROM workers WHERE dead = 0 ORDER BY number
)
