-- SPDX-License-Identifier: AGPL-3.0-only
-- Roles are shared by all databases of a cluster, so each is made only when absent.
DO $$
DECLARE
  role_name text;
BEGIN
  -- Two databases of one cluster may be migrated at the same moment.
  PERFORM pg_advisory_xact_lock(7316204912);
  FOREACH role_name IN ARRAY ARRAY['pms_owner', 'pms_app', 'pms_ingest', 'pms_store', 'pms_jobs'] LOOP
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role_name) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE', role_name);
    END IF;
    EXECUTE format('GRANT %I TO current_user', role_name);
  END LOOP;
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO pms_owner;
GRANT CREATE, USAGE ON SCHEMA public TO pms_store;
GRANT USAGE ON SCHEMA public TO pms_app, pms_ingest, pms_jobs;
