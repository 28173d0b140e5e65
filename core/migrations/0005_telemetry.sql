-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_store;

-- Names of keys, counted per tenant, so that a row holds four bytes instead of text.
CREATE TABLE telemetry_keys (
  tenant_no int4 NOT NULL,
  key_no int4 NOT NULL GENERATED ALWAYS AS IDENTITY,
  key text NOT NULL,
  PRIMARY KEY (tenant_no, key_no)
);
CREATE UNIQUE INDEX telemetry_keys_key ON telemetry_keys (tenant_no, key);

-- Which keys a device has ever sent.
CREATE TABLE telemetry_device_keys (
  tenant_no int4 NOT NULL,
  device_no int4 NOT NULL,
  key_no int4 NOT NULL,
  PRIMARY KEY (tenant_no, device_no, key_no)
);

-- One row per point. kind: 0 double (num), 1 integer (big), 2 boolean (big 0/1), 3 string (txt), 4 JSON text (txt).
-- No row level security: COPY is refused under it. Nobody but the store's functions reads here.
CREATE TABLE telemetry (
  tenant_no int4 NOT NULL,
  device_no int4 NOT NULL,
  key_no int4 NOT NULL,
  ts int8 NOT NULL,
  kind int2 NOT NULL,
  num float8,
  big int8,
  txt text,
  PRIMARY KEY (tenant_no, device_no, key_no, ts)
) PARTITION BY RANGE (ts);
-- What no month has. History from before this installation may be large and stays apart for good: its
-- constraint proves that no new month has rows of it, so that making one scans the late points alone.
CREATE TABLE telemetry_other PARTITION OF telemetry DEFAULT PARTITION BY RANGE (ts);
CREATE TABLE telemetry_late PARTITION OF telemetry_other DEFAULT;
DO $$
DECLARE
  first int8 := (extract(epoch FROM date_trunc('month', now() AT TIME ZONE 'UTC') - interval '2 months') * 1000)::int8;
BEGIN
  EXECUTE format('CREATE TABLE public.telemetry_old PARTITION OF public.telemetry_other
    (CONSTRAINT telemetry_old_ts CHECK (ts < %s)) FOR VALUES FROM (MINVALUE) TO (%s)', first, first);
END
$$;

-- Months are made here alone; rows of one that already lie in the default partition move over. Idempotent.
CREATE FUNCTION telemetry_ensure_month(month_start date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  part text := 'telemetry_' || to_char(month_start, 'YYYY_MM');
  low int8 := (extract(epoch FROM date_trunc('month', month_start)::timestamp) * 1000)::int8;
  high int8 := (extract(epoch FROM (date_trunc('month', month_start) + interval '1 month')::timestamp) * 1000)::int8;
BEGIN
  IF to_regclass('public.' || part) IS NOT NULL THEN
    RETURN;
  END IF;
  EXECUTE format('CREATE TABLE public.%I (LIKE public.telemetry INCLUDING ALL)', part);
  EXECUTE format('WITH moved AS (DELETE FROM public.telemetry_other WHERE ts >= %s AND ts < %s RETURNING *)
    INSERT INTO public.%I SELECT * FROM moved', low, high, part);
  EXECUTE format('ALTER TABLE public.telemetry ATTACH PARTITION public.%I FOR VALUES FROM (%s) TO (%s)', part, low, high);
END
$$;

-- Numbers for new keys of devices (three arrays of one length); known ones are answered too.
CREATE FUNCTION telemetry_register_keys(tenants int4[], devices int4[], names text[])
RETURNS TABLE (device_no int4, key text, key_no int4)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
  INSERT INTO public.telemetry_keys (tenant_no, key)
    SELECT DISTINCT n.tenant, n.key FROM unnest(tenants, names) AS n (tenant, key) ORDER BY n.tenant, n.key ON CONFLICT DO NOTHING;
  INSERT INTO public.telemetry_device_keys (tenant_no, device_no, key_no)
    SELECT n.tenant, n.device, k.key_no FROM unnest(tenants, devices, names) AS n (tenant, device, key)
    JOIN public.telemetry_keys k ON k.tenant_no = n.tenant AND k.key = n.key
    ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING;
  SELECT n.device, k.key, k.key_no FROM unnest(tenants, devices, names) AS n (tenant, device, key)
    JOIN public.telemetry_keys k ON k.tenant_no = n.tenant AND k.key = n.key
$$;

-- Keys that devices have sent so far, for the writer's memory.
CREATE FUNCTION telemetry_load_keys(tenants int4[], devices int4[]) RETURNS TABLE (device_no int4, key text, key_no int4)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
  SELECT d.device_no, k.key, d.key_no FROM unnest(tenants, devices) AS n (tenant, device)
    JOIN public.telemetry_device_keys d ON d.tenant_no = n.tenant AND d.device_no = n.device
    JOIN public.telemetry_keys k ON k.tenant_no = d.tenant_no AND k.key_no = d.key_no
$$;

-- Reading. The tenant always comes from the transaction's setting, never from an argument;
-- device numbers were looked up under the caller's policies in the same transaction.
CREATE FUNCTION telemetry_tenant() RETURNS int4
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT nullif(current_setting('iot_pms.tenant_no', true), '')::int4
$$;

CREATE FUNCTION telemetry_points(device int4, name text, from_ts int8, to_ts int8, max_rows int4, newest_first bool)
RETURNS TABLE (ts int8, kind int2, num float8, big int8, txt text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  tenant int4 := public.telemetry_tenant();
  number int4 := (SELECT k.key_no FROM public.telemetry_keys k WHERE k.tenant_no = tenant AND k.key = name);
BEGIN
  IF newest_first THEN
    RETURN QUERY SELECT t.ts, t.kind, t.num, t.big, t.txt FROM public.telemetry t
      WHERE t.tenant_no = tenant AND t.device_no = device AND t.key_no = number AND t.ts >= from_ts AND t.ts < to_ts
      ORDER BY t.ts DESC LIMIT max_rows;
  ELSE
    RETURN QUERY SELECT t.ts, t.kind, t.num, t.big, t.txt FROM public.telemetry t
      WHERE t.tenant_no = tenant AND t.device_no = device AND t.key_no = number AND t.ts >= from_ts AND t.ts < to_ts
      ORDER BY t.ts LIMIT max_rows;
  END IF;
END
$$;

CREATE FUNCTION telemetry_count(device int4, names text[], from_ts int8, to_ts int8) RETURNS int8
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
  SELECT count(*) FROM public.telemetry t
    WHERE t.tenant_no = public.telemetry_tenant() AND t.device_no = device AND t.ts >= from_ts AND t.ts < to_ts
      AND t.key_no IN (SELECT k.key_no FROM public.telemetry_keys k WHERE k.tenant_no = public.telemetry_tenant() AND k.key = ANY (names))
$$;

-- Newest point of each key of each device: of the named keys (NULL: all), or of the first max_keys a device has sent.
CREATE FUNCTION telemetry_latest(devices int4[], names text[], max_keys int4)
RETURNS TABLE (device_no int4, key text, ts int8, kind int2, num float8, big int8, txt text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
  SELECT n.device, k.key, p.ts, p.kind, p.num, p.big, p.txt
    FROM unnest(devices) AS n (device)
    CROSS JOIN LATERAL (
      SELECT d.key_no, k.key FROM public.telemetry_device_keys d JOIN public.telemetry_keys k USING (tenant_no, key_no)
        WHERE d.tenant_no = public.telemetry_tenant() AND d.device_no = n.device AND (names IS NULL OR k.key = ANY (names))
        ORDER BY d.key_no LIMIT max_keys) k
    CROSS JOIN LATERAL (
      SELECT t.ts, t.kind, t.num, t.big, t.txt FROM public.telemetry t
        WHERE t.tenant_no = public.telemetry_tenant() AND t.device_no = n.device AND t.key_no = k.key_no
        ORDER BY t.ts DESC LIMIT 1) p
    ORDER BY n.device, k.key
$$;

-- Removes points of the keys (NULL: all) in the range, at most max_rows of at most 1,000 keys, so that no
-- statement takes long. Goes through the keys by number; the answer says where the next call goes on.
CREATE FUNCTION telemetry_delete(device int4, names text[], from_ts int8, to_ts int8, start_key int4, start_ts int8, max_rows int4)
RETURNS TABLE (removed int8, next_key int4, next_ts int8)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  tenant int4 := public.telemetry_tenant();
  number int4;
  low int8;
  high int8;
  count int8;
  keys_left int4 := 1000;
BEGIN
  removed := 0;
  FOR number IN
    SELECT d.key_no FROM public.telemetry_device_keys d JOIN public.telemetry_keys k USING (tenant_no, key_no)
      WHERE d.tenant_no = tenant AND d.device_no = device AND d.key_no >= start_key AND (names IS NULL OR k.key = ANY (names))
      ORDER BY d.key_no LIMIT keys_left + 1
  LOOP
    low := CASE WHEN number = start_key THEN start_ts ELSE from_ts END;
    high := low;
    IF keys_left > 0 THEN
      -- The first point that stays for the next call: none when they are few enough.
      high := (SELECT t.ts FROM public.telemetry t
        WHERE t.tenant_no = tenant AND t.device_no = device AND t.key_no = number AND t.ts >= low AND t.ts < to_ts
        ORDER BY t.ts OFFSET max_rows - removed LIMIT 1);
      DELETE FROM public.telemetry t
        WHERE t.tenant_no = tenant AND t.device_no = device AND t.key_no = number AND t.ts >= low AND t.ts < coalesce(high, to_ts);
      GET DIAGNOSTICS count = ROW_COUNT;
      removed := removed + count;
      keys_left := keys_left - 1;
    END IF;
    IF high IS NOT NULL THEN
      next_key := number;
      next_ts := high;
      EXIT;
    END IF;
  END LOOP;
  RETURN NEXT;
END
$$;

REVOKE ALL ON FUNCTION telemetry_ensure_month(date), telemetry_register_keys(int4[], int4[], text[]), telemetry_load_keys(int4[], int4[]),
  telemetry_tenant(), telemetry_points(int4, text, int8, int8, int4, bool), telemetry_count(int4, text[], int8, int8),
  telemetry_latest(int4[], text[], int4), telemetry_delete(int4, text[], int8, int8, int4, int8, int4) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION telemetry_tenant(), telemetry_points(int4, text, int8, int8, int4, bool), telemetry_count(int4, text[], int8, int8),
  telemetry_latest(int4[], text[], int4), telemetry_delete(int4, text[], int8, int8, int4, int8, int4) TO pms_app;
GRANT EXECUTE ON FUNCTION telemetry_register_keys(int4[], int4[], text[]), telemetry_load_keys(int4[], int4[]) TO pms_ingest;
GRANT EXECUTE ON FUNCTION telemetry_ensure_month(date) TO pms_jobs;
-- A repeated point overwrites the older one, which needs more than INSERT.
GRANT SELECT, INSERT, UPDATE ON telemetry TO pms_ingest;
