-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- What the planner knows of the tables that grow with devices; see core/src/db/planner-statistics.ts.
CREATE FUNCTION analyze_device_tables() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
  ANALYZE public.devices, public.device_credentials, public.device_log, public.device_attributes, public.device_rejects
$$;
REVOKE ALL ON FUNCTION analyze_device_tables() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION analyze_device_tables() TO pms_jobs;
