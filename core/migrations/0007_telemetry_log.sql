-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_store;

-- Points arrive in segments, tables of their own (telemetry_segment_<no>) without an index, one row per message:
-- (tenant_no, device_no, seq: order of commits in the segment, first_ts, last_ts, points: see docs/reference/chunk-format.md).
-- active: written by its owner; sealed: indexed, nobody may insert; compacted: its points are in chunks, its
-- table goes when no reader can still see it.
CREATE TABLE telemetry_segments (
  segment_no int4 PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'sealed', 'compacted')),
  owner uuid NOT NULL,
  opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  sealed_at timestamptz,
  compacted_at timestamptz,
  row_count int8,
  size_bytes int8,
  -- Of all its points; known once it is sealed.
  first_ts int8,
  last_ts int8
);

-- Points of one series (device, key) in first_ts ≤ ts ≤ last_ts; chunks of a series never overlap.
-- kinds: bit 0 double, 1 integer, 2 boolean, 3 string, 4 JSON. The statistics are NULL where a float8 cannot
-- say them exactly or there are no numbers. growth: sum of the increases of a counter inside the chunk.
-- ends: first and last value in the form of segment rows, NULL when they are long.
-- hour_marks: (hour since 1970 UTC, count) of each hour with points; hour_values: its (min, max, sum).
CREATE TABLE telemetry_chunks (
  tenant_no int4 NOT NULL,
  device_no int4 NOT NULL,
  key_no int4 NOT NULL,
  count int4 NOT NULL,
  first_ts int8 NOT NULL,
  last_ts int8 NOT NULL,
  min float8,
  max float8,
  sum float8,
  growth float8,
  kinds int2 NOT NULL,
  ends bytea,
  hour_marks int4[] NOT NULL,
  hour_values float8[],
  points bytea NOT NULL,
  PRIMARY KEY (tenant_no, device_no, key_no, first_ts),
  CHECK (first_ts <= last_ts AND count > 0)
);
-- They come compressed.
ALTER TABLE telemetry_chunks ALTER COLUMN points SET STORAGE EXTERNAL;
ALTER TABLE telemetry_chunks SET (autovacuum_vacuum_scale_factor = 0.05);

-- Chunks that could not be decoded any more, put aside so that the rest goes on. Nothing deletes them.
CREATE TABLE telemetry_damaged_chunks (
  LIKE telemetry_chunks,
  found_at timestamptz NOT NULL DEFAULT now(),
  reason text NOT NULL,
  PRIMARY KEY (tenant_no, device_no, key_no, first_ts, found_at)
);

-- Reading. The tenant always comes from the transaction's setting; device numbers were looked up under the
-- caller's policies in the same transaction.

-- Rows of devices that are not in chunks yet, oldest first; their points are filtered by the server. Up to most_bytes:
-- one row with NULLs at the end says that there is more. Without that bound all of them, in blocks of about 4 MiB.
CREATE FUNCTION telemetry_tail(devices int4[], from_ts int8, to_ts int8, most_bytes int8 DEFAULT NULL) RETURNS TABLE (device_no int4, points bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  tenant int4 := public.telemetry_tenant();
  room int8 := most_bytes;
  number int4;
  numbers int4[];
  blocks bytea[];
  bytes int8;
BEGIN
  -- Catalog and tables are read by the snapshot of the calling query: a segment is seen, or its chunks are.
  FOR number IN
    SELECT s.segment_no FROM public.telemetry_segments s
      WHERE s.state <> 'compacted' AND (s.first_ts IS NULL OR s.first_ts < to_ts) AND (s.last_ts IS NULL OR s.last_ts >= from_ts)
      ORDER BY s.segment_no
  LOOP
    IF most_bytes IS NULL THEN
      RETURN QUERY EXECUTE format('SELECT b.device_no, string_agg(b.points, '''' ORDER BY b.seq) FROM (
          SELECT s.device_no, s.seq, s.points, sum(octet_length(s.points)) OVER (PARTITION BY s.device_no ORDER BY s.seq) / 4194304 AS block
            FROM public.telemetry_segment_%s s
            WHERE s.tenant_no = $1 AND s.device_no = ANY ($2) AND s.first_ts < $4 AND s.last_ts >= $3) b
        GROUP BY b.device_no, b.block ORDER BY b.device_no, b.block', number)
        USING tenant, devices, from_ts, to_ts;
    ELSE
      EXECUTE format('SELECT array_agg(d.device_no), array_agg(d.points), coalesce(sum(octet_length(d.points)), 0) FROM (
          SELECT b.device_no, string_agg(b.points, '''' ORDER BY b.seq) AS points FROM (
            SELECT s.device_no, s.seq, s.points, sum(octet_length(s.points)) OVER (ORDER BY s.seq) AS up_to
              FROM public.telemetry_segment_%s s
              WHERE s.tenant_no = $1 AND s.device_no = ANY ($2) AND s.first_ts < $4 AND s.last_ts >= $3) b
          WHERE b.up_to - octet_length(b.points) <= $5 GROUP BY b.device_no) d', number)
        INTO numbers, blocks, bytes USING tenant, devices, from_ts, to_ts, room;
      room := room - bytes;
      IF room < 0 THEN
        RETURN QUERY SELECT NULL::int4, NULL::bytea;
        RETURN;
      END IF;
      RETURN QUERY SELECT u.n, u.b FROM unnest(numbers, blocks) AS u (n, b);
    END IF;
  END LOOP;
END
$$;

-- Whether a device has sent at most so many keys.
CREATE FUNCTION telemetry_has_few_keys(device int4, most int4) RETURNS bool
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
  SELECT count(*) <= most FROM (
    SELECT FROM public.telemetry_device_keys d WHERE d.tenant_no = public.telemetry_tenant() AND d.device_no = device LIMIT most + 1) k
$$;

-- Keys that devices have sent so far, for the writer's memory. Each device is looked up by itself (OFFSET 0 keeps it so):
-- until the tables are first analyzed, the planner would go through all keys of all devices for each of them.
CREATE OR REPLACE FUNCTION telemetry_load_keys(tenants int4[], devices int4[]) RETURNS TABLE (device_no int4, key text, key_no int4)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
  SELECT d.device_no, k.key, d.key_no FROM unnest(tenants, devices) AS n (tenant, device)
    CROSS JOIN LATERAL (SELECT o.* FROM public.telemetry_device_keys o
      WHERE o.tenant_no = n.tenant AND o.device_no = n.device OFFSET 0) d
    JOIN public.telemetry_keys k ON k.tenant_no = d.tenant_no AND k.key_no = d.key_no
$$;

-- Number of a key; NULL when no device has ever sent it.
CREATE FUNCTION telemetry_key_no(name text) RETURNS int4
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
  SELECT k.key_no FROM public.telemetry_keys k WHERE k.tenant_no = public.telemetry_tenant() AND k.key = name
$$;

-- Chunks of a series that reach into the range, in time order or newest first: those at least points_over ms long (0: all)
-- with their points, the others with the statistics of their hours.
CREATE FUNCTION telemetry_chunks_of(device int4, number int4, from_ts int8, to_ts int8, max_rows int4, newest_first bool, points_over int8)
RETURNS TABLE (first_ts int8, last_ts int8, count int4, kinds int2, min float8, max float8, sum float8, growth float8,
  ends bytea, hour_marks int4[], hour_values float8[], points bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  tenant int4 := public.telemetry_tenant();
  -- The chunk that holds from_ts begins before it.
  low int8 := coalesce((SELECT c.first_ts FROM public.telemetry_chunks c
    WHERE c.tenant_no = tenant AND c.device_no = device AND c.key_no = number AND c.first_ts <= from_ts
    ORDER BY c.first_ts DESC LIMIT 1), from_ts);
BEGIN
  IF newest_first THEN
    RETURN QUERY SELECT c.first_ts, c.last_ts, c.count, c.kinds, c.min, c.max, c.sum, c.growth, c.ends,
        CASE WHEN c.last_ts - c.first_ts < points_over THEN c.hour_marks END, CASE WHEN c.last_ts - c.first_ts < points_over THEN c.hour_values END,
        CASE WHEN c.last_ts - c.first_ts >= points_over THEN c.points END
      FROM public.telemetry_chunks c
      WHERE c.tenant_no = tenant AND c.device_no = device AND c.key_no = number AND c.first_ts >= low AND c.first_ts < to_ts AND c.last_ts >= from_ts
      ORDER BY c.first_ts DESC LIMIT max_rows;
  ELSE
    RETURN QUERY SELECT c.first_ts, c.last_ts, c.count, c.kinds, c.min, c.max, c.sum, c.growth, c.ends,
        CASE WHEN c.last_ts - c.first_ts < points_over THEN c.hour_marks END, CASE WHEN c.last_ts - c.first_ts < points_over THEN c.hour_values END,
        CASE WHEN c.last_ts - c.first_ts >= points_over THEN c.points END
      FROM public.telemetry_chunks c
      WHERE c.tenant_no = tenant AND c.device_no = device AND c.key_no = number AND c.first_ts >= low AND c.first_ts < to_ts AND c.last_ts >= from_ts
      ORDER BY c.first_ts LIMIT max_rows;
  END IF;
END
$$;

-- Last chunk of each key of each device in their order: of the named keys (NULL: all), or of the first max_keys a device
-- has sent; at most max_rows, after this key of the first device. A key whose points are all in segments has NULLs, and
-- a chunk with long ends has no ends.
CREATE FUNCTION telemetry_last_chunks(devices int4[], names text[], max_keys int4, after_key int4, max_rows int4)
RETURNS TABLE (device_no int4, key text, key_no int4, first_ts int8, last_ts int8, ends bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  tenant int4 := public.telemetry_tenant();
  device int4;
  low int4 := after_key;
  room int8 := max_rows;
  found_rows int8;
BEGIN
  FOREACH device IN ARRAY devices LOOP
    RETURN QUERY SELECT device, k.key, k.key_no, c.first_ts, c.last_ts, c.ends
      FROM (
        SELECT f.key_no, f.key FROM (
          SELECT d.key_no, n.key FROM public.telemetry_device_keys d JOIN public.telemetry_keys n USING (tenant_no, key_no)
            WHERE d.tenant_no = tenant AND d.device_no = device AND (names IS NULL OR n.key = ANY (names))
            ORDER BY d.key_no LIMIT max_keys) f
          WHERE f.key_no > low ORDER BY f.key_no LIMIT room) k
      LEFT JOIN LATERAL (
        SELECT t.first_ts, t.last_ts, t.ends FROM public.telemetry_chunks t
          WHERE t.tenant_no = tenant AND t.device_no = device AND t.key_no = k.key_no
          ORDER BY t.first_ts DESC LIMIT 1) c ON true
      ORDER BY k.key_no;
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    room := room - found_rows;
    EXIT WHEN room <= 0;
    low := 0;
  END LOOP;
END
$$;

-- The first store's table, one row per point, is emptied into chunks while the server runs; then it goes.
CREATE FUNCTION telemetry_drop_first_store() RETURNS bool
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  has_rows bool;
BEGIN
  IF to_regclass('public.telemetry') IS NULL THEN
    RETURN true;
  END IF;
  EXECUTE 'SELECT EXISTS (SELECT FROM public.telemetry)' INTO has_rows;
  IF has_rows THEN
    RETURN false;
  END IF;
  DROP TABLE public.telemetry;
  DROP FUNCTION public.telemetry_points(int4, text, int8, int8, int4, bool), public.telemetry_latest(int4[], text[], int4),
    public.telemetry_delete(int4, text[], int8, int8, int4, int8, int4), public.telemetry_count(int4, text[], int8, int8),
    public.telemetry_ensure_month(date);
  RETURN true;
END
$$;
SELECT telemetry_drop_first_store();

REVOKE ALL ON FUNCTION telemetry_tail(int4[], int8, int8, int8), telemetry_key_no(text), telemetry_has_few_keys(int4, int4),
  telemetry_chunks_of(int4, int4, int8, int8, int4, bool, int8), telemetry_last_chunks(int4[], text[], int4, int4, int4), telemetry_drop_first_store() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION telemetry_tail(int4[], int8, int8, int8), telemetry_key_no(text), telemetry_has_few_keys(int4, int4),
  telemetry_chunks_of(int4, int4, int8, int8, int4, bool, int8), telemetry_last_chunks(int4[], text[], int4, int4, int4) TO pms_app;

GRANT SELECT ON telemetry_chunks, telemetry_keys TO pms_owner;

SET ROLE pms_owner;
-- Work that one server at a time may do. All times are the database's; `epoch` grows with each change of holder.
CREATE TABLE leases (
  name text PRIMARY KEY,
  holder uuid NOT NULL,
  epoch int8 NOT NULL DEFAULT 1,
  expires_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON leases TO pms_jobs, pms_store;

-- Hourly statistics of numbers for readers of the database (Grafana and others): what is in chunks, so up to
-- about half an hour behind. Grant it to a role of your own: docs/how-to/storage.md.
CREATE VIEW telemetry_hourly AS
  SELECT t.id AS tenant_id, d.id AS device_id, d.name AS device, k.key,
    to_timestamp(c.hour_marks[2 * i - 1]::int8 * 3600) AS hour,
    sum(c.hour_marks[2 * i])::int8 AS count,
    min(c.hour_values[3 * i - 2]) AS min,
    max(c.hour_values[3 * i - 1]) AS max,
    sum(c.hour_values[3 * i]) / nullif(sum(CASE WHEN c.hour_values IS NOT NULL THEN c.hour_marks[2 * i] END), 0) AS avg
  FROM telemetry_chunks c
    JOIN tenants t ON t.number = c.tenant_no
    JOIN devices d ON d.tenant_id = t.id AND d.number = c.device_no AND d.deleted_at IS NULL
    JOIN telemetry_keys k ON k.tenant_no = c.tenant_no AND k.key_no = c.key_no
    CROSS JOIN LATERAL generate_series(1, cardinality(c.hour_marks) / 2) AS i
  GROUP BY t.id, d.id, d.name, k.key, c.hour_marks[2 * i - 1];
