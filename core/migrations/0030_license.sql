-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- The license belongs to the installation: its rows are those of the root tenant, and no other tenant sees them.
-- One row: identity, the revocation list, the clock mark, and a revision that tells replicas to read again.
CREATE TABLE license_state (
  tenant_id uuid PRIMARY KEY REFERENCES tenants,
  install_id uuid NOT NULL,
  -- Ed25519, sealed; NULL until the first start.
  instance_key text,
  instance_jkt text,
  current_sub text,
  -- Largest time seen, in ms; a jump ahead counts only after a day of running.
  high_water int8 NOT NULL DEFAULT floor(extract(epoch FROM now()) * 1000),
  pending_minutes float8 NOT NULL DEFAULT 0,
  crl text,
  crl_seq int8 NOT NULL DEFAULT 0,
  -- State of which the last event was written.
  noted_state text NOT NULL DEFAULT 'COMMUNITY',
  revision int8 NOT NULL DEFAULT 0
);
SELECT protect_tenant_table('license_state');
REVOKE INSERT, DELETE ON license_state FROM pms_app;
INSERT INTO license_state (tenant_id, install_id) SELECT t.id, i.install_id FROM tenants t, installation i WHERE t.root;

CREATE TABLE license_tokens (
  tenant_id uuid NOT NULL REFERENCES tenants,
  jti uuid NOT NULL,
  sub text NOT NULL,
  seq int8 NOT NULL,
  kid text NOT NULL,
  token text NOT NULL,
  claims jsonb NOT NULL,
  source text NOT NULL CHECK (source IN ('upload', 'file', 'env')),
  installed_at timestamptz NOT NULL,
  installed_by text NOT NULL,
  removed_at timestamptz,
  removed_by text,
  -- Given back to the vendor: never comes into force here again.
  released_at timestamptz,
  mismatch_since timestamptz,
  bound_since timestamptz,
  PRIMARY KEY (tenant_id, jti)
);
SELECT protect_tenant_table('license_tokens');
REVOKE DELETE ON license_tokens FROM pms_app;

-- What happened, for ever. `once` keeps replicas from noting the same thing twice.
CREATE TABLE license_events (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  at timestamptz NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('ok', 'refused')),
  code text,
  jti text,
  seq int8,
  kid text,
  detail jsonb NOT NULL DEFAULT '{}',
  once text,
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, once)
);
SELECT protect_tenant_table('license_events');
REVOKE UPDATE, DELETE ON license_events FROM pms_app;

-- Highest number of devices of each UTC day under a license.
CREATE TABLE license_usage_days (
  tenant_id uuid NOT NULL REFERENCES tenants,
  day date NOT NULL,
  jti uuid NOT NULL,
  devices int8 NOT NULL,
  limit_devices int8 NOT NULL,
  PRIMARY KEY (tenant_id, day, jti)
);
SELECT protect_tenant_table('license_usage_days');
REVOKE DELETE ON license_usage_days FROM pms_app;

-- A license counts over all tenants, whoever asks. Example data is nobody's use.
CREATE FUNCTION license_device_count() RETURNS int8
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
  SELECT count(*) FROM public.devices WHERE deleted_at IS NULL AND NOT is_demo
$$;
CREATE FUNCTION license_counts(OUT devices int8, OUT users int8, OUT tenants int8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
  SELECT public.license_device_count(), (SELECT count(*) FROM public.users), (SELECT count(*) FROM public.tenants)
$$;
-- Notes the devices of today, also from a transaction of another tenant than the root.
CREATE FUNCTION license_note_usage(day date, jti uuid, devices int8, limit_devices int8) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
  INSERT INTO public.license_usage_days AS u (tenant_id, day, jti, devices, limit_devices)
  SELECT t.id, $1, $2, $3, $4 FROM public.tenants t WHERE t.root
  ON CONFLICT (tenant_id, day, jti) DO UPDATE SET devices = greatest(u.devices, excluded.devices), limit_devices = excluded.limit_devices
  WHERE u.devices < excluded.devices OR u.limit_devices <> excluded.limit_devices
$$;
REVOKE ALL ON FUNCTION license_device_count(), license_counts(), license_note_usage(date, uuid, int8, int8) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license_device_count(), license_counts(), license_note_usage(date, uuid, int8, int8) TO pms_app;
