-- SPDX-License-Identifier: AGPL-3.0-only
-- Written by "pnpm generate" from a migrated database; the migrations are the source.

CREATE TABLE alarm_events (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  alarm_id uuid NOT NULL,
  customer_id uuid,
  at timestamp with time zone NOT NULL,
  actor text,
  actor_id uuid,
  kind text NOT NULL,
  data jsonb NOT NULL DEFAULT '{}'::jsonb,
  CONSTRAINT alarm_events_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT alarm_events_tenant_id_alarm_id_fkey FOREIGN KEY (tenant_id, alarm_id) REFERENCES alarms(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE alarm_events OWNER TO pms_owner;
ALTER TABLE alarm_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE alarm_events FORCE ROW LEVEL SECURITY;
CREATE INDEX alarm_events_alarm ON public.alarm_events USING btree (tenant_id, alarm_id, id);
CREATE POLICY maintenance ON alarm_events TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON alarm_events TO pms_app USING (((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid) AND ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text) IS NULL) OR (customer_id = ANY ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text))::uuid[]))))) WITH CHECK (((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid) AND ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text) IS NULL) OR (customer_id = ANY ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text))::uuid[])))));
GRANT DELETE, INSERT, SELECT, UPDATE ON alarm_events TO pms_app;

CREATE TABLE alarms (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  customer_id uuid,
  device_id uuid,
  source text NOT NULL,
  origin text NOT NULL,
  rule_id uuid,
  rule_version integer,
  type text NOT NULL,
  instance text NOT NULL DEFAULT ''::text,
  severity text NOT NULL,
  highest_severity text NOT NULL,
  start_ts bigint NOT NULL,
  confirmed_ts bigint NOT NULL,
  end_ts bigint,
  cleared_ts bigint,
  clear_reason text,
  acked_at timestamp with time zone,
  acked_by text,
  assignee_id uuid,
  title text NOT NULL,
  labels jsonb NOT NULL DEFAULT '{}'::jsonb,
  trigger jsonb NOT NULL DEFAULT '{}'::jsonb,
  episodes integer NOT NULL DEFAULT 1,
  last_event_at timestamp with time zone NOT NULL,
  rank smallint NOT NULL DEFAULT (
CASE
    WHEN (cleared_ts IS NULL) THEN 0
    ELSE 2
END +
CASE
    WHEN (acked_at IS NULL) THEN 0
    ELSE 1
END),
  CONSTRAINT alarms_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT alarms_check CHECK (((cleared_ts IS NULL) = (clear_reason IS NULL))),
  CONSTRAINT alarms_highest_severity_check CHECK ((highest_severity = ANY (ARRAY['critical'::text, 'major'::text, 'minor'::text, 'warning'::text]))),
  CONSTRAINT alarms_severity_check CHECK ((severity = ANY (ARRAY['critical'::text, 'major'::text, 'minor'::text, 'warning'::text]))),
  CONSTRAINT alarms_tenant_id_assignee_id_fkey FOREIGN KEY (tenant_id, assignee_id) REFERENCES users(tenant_id, id) ON DELETE SET NULL (assignee_id),
  CONSTRAINT alarms_tenant_id_customer_id_fkey FOREIGN KEY (tenant_id, customer_id) REFERENCES customers(tenant_id, id),
  CONSTRAINT alarms_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT alarms_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE alarms OWNER TO pms_owner;
ALTER TABLE alarms ENABLE ROW LEVEL SECURITY;
ALTER TABLE alarms FORCE ROW LEVEL SECURITY;
CREATE INDEX alarms_assignee ON public.alarms USING btree (tenant_id, assignee_id) WHERE (assignee_id IS NOT NULL);
CREATE INDEX alarms_desk ON public.alarms USING btree (tenant_id, rank, start_ts DESC, id DESC);
CREATE INDEX alarms_device ON public.alarms USING btree (tenant_id, device_id, start_ts DESC);
CREATE INDEX alarms_start ON public.alarms USING btree (tenant_id, start_ts DESC, id DESC);
CREATE UNIQUE INDEX alarms_once ON public.alarms USING btree (tenant_id, rule_id, device_id, instance, start_ts) WHERE (rule_id IS NOT NULL);
CREATE UNIQUE INDEX alarms_open ON public.alarms USING btree (tenant_id, origin, device_id, instance) NULLS NOT DISTINCT WHERE (cleared_ts IS NULL);
CREATE POLICY maintenance ON alarms TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON alarms TO pms_app USING (((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid) AND ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text) IS NULL) OR (customer_id = ANY ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text))::uuid[]))))) WITH CHECK (((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid) AND ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text) IS NULL) OR (customer_id = ANY ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text))::uuid[])))));
GRANT DELETE, INSERT, SELECT, UPDATE ON alarms TO pms_app;

CREATE TABLE api_keys (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  user_id uuid NOT NULL,
  name text NOT NULL,
  key_sha256 bytea NOT NULL,
  last4 text NOT NULL,
  scopes text[] NOT NULL,
  addresses text[] NOT NULL DEFAULT '{}'::text[],
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  expires_at timestamp with time zone NOT NULL,
  last_used_at timestamp with time zone,
  CONSTRAINT api_keys_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT api_keys_tenant_id_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE api_keys OWNER TO pms_owner;
ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
CREATE INDEX api_keys_user ON public.api_keys USING btree (tenant_id, user_id);
CREATE UNIQUE INDEX api_keys_key ON public.api_keys USING btree (key_sha256);
CREATE POLICY maintenance ON api_keys TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON api_keys TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON api_keys TO pms_app;

CREATE TABLE command_counters (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  last_no integer NOT NULL,
  CONSTRAINT command_counters_pkey PRIMARY KEY (tenant_id, device_id),
  CONSTRAINT command_counters_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE command_counters OWNER TO pms_owner;
ALTER TABLE command_counters ENABLE ROW LEVEL SECURITY;
ALTER TABLE command_counters FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON command_counters TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON command_counters TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON command_counters TO pms_app;

CREATE TABLE command_moves (
  tenant_id uuid NOT NULL,
  command_id uuid NOT NULL,
  no integer NOT NULL,
  at timestamp with time zone NOT NULL,
  state text NOT NULL,
  detail text,
  CONSTRAINT command_moves_pkey PRIMARY KEY (tenant_id, command_id, no),
  CONSTRAINT command_moves_tenant_id_command_id_fkey FOREIGN KEY (tenant_id, command_id) REFERENCES commands(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE command_moves OWNER TO pms_owner;
ALTER TABLE command_moves ENABLE ROW LEVEL SECURITY;
ALTER TABLE command_moves FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON command_moves TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON command_moves TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON command_moves TO pms_app;

CREATE TABLE commands (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  device_id uuid NOT NULL,
  no integer NOT NULL,
  method text NOT NULL,
  params text NOT NULL,
  oneway boolean NOT NULL,
  state text NOT NULL,
  retries integer NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  response text,
  additional_info text,
  created_by text NOT NULL,
  created_at timestamp with time zone NOT NULL,
  expires_at timestamp with time zone NOT NULL,
  updated_at timestamp with time zone NOT NULL,
  CONSTRAINT commands_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT commands_state_check CHECK ((state = ANY (ARRAY['QUEUED'::text, 'SENT'::text, 'DELIVERED'::text, 'SUCCESSFUL'::text, 'TIMEOUT'::text, 'EXPIRED'::text, 'FAILED'::text, 'DELETED'::text]))),
  CONSTRAINT commands_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE commands OWNER TO pms_owner;
ALTER TABLE commands ENABLE ROW LEVEL SECURITY;
ALTER TABLE commands FORCE ROW LEVEL SECURITY;
CREATE INDEX commands_device ON public.commands USING btree (tenant_id, device_id, id);
CREATE INDEX commands_expiry ON public.commands USING btree (tenant_id, expires_at) WHERE ((state = ANY (ARRAY['QUEUED'::text, 'SENT'::text, 'TIMEOUT'::text])) OR ((state = 'DELIVERED'::text) AND (NOT oneway)));
CREATE INDEX commands_open ON public.commands USING btree (tenant_id, device_id, no) WHERE ((state = ANY (ARRAY['QUEUED'::text, 'SENT'::text, 'TIMEOUT'::text])) OR ((state = 'DELIVERED'::text) AND (NOT oneway)));
CREATE POLICY maintenance ON commands TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON commands TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON commands TO pms_app;

CREATE TABLE connectors (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name text NOT NULL,
  is_enabled boolean NOT NULL DEFAULT false,
  settings jsonb NOT NULL DEFAULT '{}'::jsonb,
  sealed_password text,
  device_id uuid,
  version integer NOT NULL DEFAULT 1,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT connectors_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT connectors_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE SET NULL (device_id),
  CONSTRAINT connectors_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE connectors OWNER TO pms_owner;
ALTER TABLE connectors ENABLE ROW LEVEL SECURITY;
ALTER TABLE connectors FORCE ROW LEVEL SECURITY;
CREATE INDEX connectors_device ON public.connectors USING btree (tenant_id, device_id) WHERE (device_id IS NOT NULL);
CREATE UNIQUE INDEX connectors_name ON public.connectors USING btree (tenant_id, name);
CREATE POLICY maintenance ON connectors TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON connectors TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON connectors TO pms_app;

CREATE TABLE customers (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  parent_id uuid,
  path uuid[] NOT NULL,
  name text NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT customers_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT customers_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT customers_tenant_id_parent_id_fkey FOREIGN KEY (tenant_id, parent_id) REFERENCES customers(tenant_id, id)
);
ALTER TABLE customers OWNER TO pms_owner;
ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
ALTER TABLE customers FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON customers TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON customers TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON customers TO pms_app;

CREATE TABLE device_attributes (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  scope text NOT NULL,
  key text NOT NULL,
  kind smallint NOT NULL,
  num double precision,
  big bigint,
  txt text,
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT device_attributes_pkey PRIMARY KEY (tenant_id, device_id, scope, key),
  CONSTRAINT device_attributes_scope_check CHECK ((scope = ANY (ARRAY['client'::text, 'shared'::text, 'server'::text]))),
  CONSTRAINT device_attributes_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE device_attributes OWNER TO pms_owner;
ALTER TABLE device_attributes ENABLE ROW LEVEL SECURITY;
ALTER TABLE device_attributes FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON device_attributes TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON device_attributes TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON device_attributes TO pms_app;

CREATE TABLE device_claims (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  secret_hmac bytea NOT NULL,
  created_at timestamp with time zone NOT NULL,
  expires_at timestamp with time zone NOT NULL,
  failures integer NOT NULL DEFAULT 0,
  failing_since timestamp with time zone,
  CONSTRAINT device_claims_pkey PRIMARY KEY (tenant_id, device_id),
  CONSTRAINT device_claims_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE device_claims OWNER TO pms_owner;
ALTER TABLE device_claims ENABLE ROW LEVEL SECURITY;
ALTER TABLE device_claims FORCE ROW LEVEL SECURITY;
CREATE INDEX device_claims_expiry ON public.device_claims USING btree (tenant_id, expires_at);
CREATE POLICY maintenance ON device_claims TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON device_claims TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON device_claims TO pms_app;

CREATE TABLE device_credentials (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL,
  lookup_sha256 bytea NOT NULL,
  password_hmac bytea,
  sealed text NOT NULL,
  is_active boolean NOT NULL DEFAULT true,
  expires_at timestamp with time zone,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT device_credentials_pkey PRIMARY KEY (tenant_id, device_id, id),
  CONSTRAINT device_credentials_kind_check CHECK ((kind = ANY (ARRAY['access_token'::text, 'mqtt_basic'::text, 'x509'::text]))),
  CONSTRAINT device_credentials_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE device_credentials OWNER TO pms_owner;
ALTER TABLE device_credentials ENABLE ROW LEVEL SECURITY;
ALTER TABLE device_credentials FORCE ROW LEVEL SECURITY;
CREATE UNIQUE INDEX device_credentials_lookup ON public.device_credentials USING btree (lookup_sha256) WHERE is_active;
CREATE POLICY maintenance ON device_credentials TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON device_credentials TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON device_credentials TO pms_app;

CREATE TABLE device_log (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  id uuid NOT NULL,
  at timestamp with time zone NOT NULL DEFAULT now(),
  event text NOT NULL,
  detail jsonb NOT NULL DEFAULT '{}'::jsonb,
  CONSTRAINT device_log_pkey PRIMARY KEY (tenant_id, device_id, id),
  CONSTRAINT device_log_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE device_log OWNER TO pms_owner;
ALTER TABLE device_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE device_log FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON device_log TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON device_log TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON device_log TO pms_app;

CREATE TABLE device_rejects (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  id uuid NOT NULL,
  code text NOT NULL,
  detail text NOT NULL,
  transport text NOT NULL,
  topic text NOT NULL,
  key text,
  ts bigint,
  sample text NOT NULL,
  packet_id integer,
  client_id text,
  address text NOT NULL,
  count integer NOT NULL,
  first_at timestamp with time zone NOT NULL,
  last_at timestamp with time zone NOT NULL,
  CONSTRAINT device_rejects_pkey PRIMARY KEY (tenant_id, device_id, id),
  CONSTRAINT device_rejects_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE device_rejects OWNER TO pms_owner;
ALTER TABLE device_rejects ENABLE ROW LEVEL SECURITY;
ALTER TABLE device_rejects FORCE ROW LEVEL SECURITY;
CREATE INDEX device_rejects_last ON public.device_rejects USING btree (tenant_id, device_id, last_at);
CREATE POLICY maintenance ON device_rejects TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON device_rejects TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON device_rejects TO pms_app;

CREATE TABLE devices (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  number integer NOT NULL GENERATED AS IDENTITY,
  customer_id uuid,
  product_id uuid NOT NULL,
  name text NOT NULL,
  label text,
  description text,
  tags text[] NOT NULL DEFAULT '{}'::text[],
  is_gateway boolean NOT NULL DEFAULT false,
  is_demo boolean NOT NULL DEFAULT false,
  time_zone text,
  inactivity_timeout_ms bigint,
  additional_info jsonb NOT NULL DEFAULT '{}'::jsonb,
  disabled_at timestamp with time zone,
  link text NOT NULL DEFAULT 'none'::text,
  last_connect_at timestamp with time zone,
  last_disconnect_at timestamp with time zone,
  disconnect_reason text,
  last_activity_at timestamp with time zone,
  version integer NOT NULL DEFAULT 1,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  deleted_at timestamp with time zone,
  deleted_by text,
  purging_at timestamp with time zone,
  provisioned_at timestamp with time zone,
  gateway_id uuid,
  own_connect_at timestamp with time zone,
  CONSTRAINT devices_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT devices_gateway_fkey FOREIGN KEY (tenant_id, gateway_id) REFERENCES devices(tenant_id, id) ON DELETE SET NULL (gateway_id),
  CONSTRAINT devices_link_check CHECK ((link = ANY (ARRAY['none'::text, 'session'::text, 'closed'::text, 'http'::text]))),
  CONSTRAINT devices_tenant_id_customer_id_fkey FOREIGN KEY (tenant_id, customer_id) REFERENCES customers(tenant_id, id),
  CONSTRAINT devices_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT devices_tenant_id_number_key UNIQUE (tenant_id, number),
  CONSTRAINT devices_tenant_id_product_id_fkey FOREIGN KEY (tenant_id, product_id) REFERENCES products(tenant_id, id)
);
ALTER TABLE devices OWNER TO pms_owner;
ALTER TABLE devices ENABLE ROW LEVEL SECURITY;
ALTER TABLE devices FORCE ROW LEVEL SECURITY;
CREATE INDEX devices_activity ON public.devices USING btree (tenant_id, last_activity_at, id) WHERE (deleted_at IS NULL);
CREATE INDEX devices_bin ON public.devices USING btree (tenant_id, deleted_at, id) WHERE (deleted_at IS NOT NULL);
CREATE INDEX devices_created ON public.devices USING btree (tenant_id, created_at, id) WHERE (deleted_at IS NULL);
CREATE INDEX devices_gateway ON public.devices USING btree (tenant_id, gateway_id, id) WHERE (gateway_id IS NOT NULL);
CREATE INDEX devices_product ON public.devices USING btree (tenant_id, product_id) WHERE (deleted_at IS NULL);
CREATE INDEX devices_tags ON public.devices USING gin (tags) WHERE (deleted_at IS NULL);
CREATE UNIQUE INDEX devices_name ON public.devices USING btree (tenant_id, name) WHERE (deleted_at IS NULL);
CREATE POLICY maintenance ON devices TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON devices TO pms_app USING (((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid) AND ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text) IS NULL) OR (customer_id = ANY ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text))::uuid[]))))) WITH CHECK (((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid) AND ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text) IS NULL) OR (customer_id = ANY ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text))::uuid[])))));
GRANT DELETE, INSERT, SELECT, UPDATE ON devices TO pms_app;

CREATE TABLE evidence_keys (
  tenant_id uuid NOT NULL,
  id text NOT NULL,
  public_key bytea NOT NULL,
  sealed text NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT evidence_keys_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT evidence_keys_public_key_check CHECK ((length(public_key) = 32)),
  CONSTRAINT evidence_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id) ON DELETE CASCADE
);
ALTER TABLE evidence_keys OWNER TO pms_owner;
ALTER TABLE evidence_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE evidence_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON evidence_keys TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON evidence_keys TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT INSERT, SELECT ON evidence_keys TO pms_app;

CREATE TABLE idempotency_keys (
  tenant_id uuid NOT NULL,
  user_id uuid NOT NULL,
  key text NOT NULL,
  request_sha256 bytea NOT NULL,
  status integer,
  sealed_body text,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, user_id, key),
  CONSTRAINT idempotency_keys_tenant_id_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE idempotency_keys OWNER TO pms_owner;
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE INDEX idempotency_keys_created ON public.idempotency_keys USING btree (tenant_id, created_at);
CREATE POLICY maintenance ON idempotency_keys TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON idempotency_keys TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON idempotency_keys TO pms_app;

CREATE TABLE ingest_minutes (
  tenant_id uuid NOT NULL,
  minute timestamp with time zone NOT NULL,
  messages bigint NOT NULL,
  points bigint NOT NULL,
  rejects bigint NOT NULL,
  CONSTRAINT ingest_minutes_pkey PRIMARY KEY (tenant_id, minute),
  CONSTRAINT ingest_minutes_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE ingest_minutes OWNER TO pms_owner;
ALTER TABLE ingest_minutes ENABLE ROW LEVEL SECURITY;
ALTER TABLE ingest_minutes FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON ingest_minutes TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON ingest_minutes TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON ingest_minutes TO pms_app;

CREATE TABLE installation (
  id boolean NOT NULL DEFAULT true,
  install_id uuid NOT NULL DEFAULT gen_random_uuid(),
  secret_key_id text,
  ingest_epoch bigint NOT NULL DEFAULT 0,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  device_limits jsonb NOT NULL DEFAULT '{}'::jsonb,
  CONSTRAINT installation_pkey PRIMARY KEY (id),
  CONSTRAINT installation_id_check CHECK (id)
);
ALTER TABLE installation OWNER TO pms_owner;
GRANT SELECT, UPDATE ON installation TO pms_jobs;

CREATE TABLE job_poison (
  tenant_id uuid NOT NULL,
  queue text NOT NULL,
  payload_sha256 bytea NOT NULL,
  failures integer NOT NULL DEFAULT 1,
  first_at timestamp with time zone NOT NULL DEFAULT now(),
  last_at timestamp with time zone NOT NULL DEFAULT now(),
  quarantined_at timestamp with time zone,
  CONSTRAINT job_poison_pkey PRIMARY KEY (tenant_id, queue, payload_sha256),
  CONSTRAINT job_poison_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE job_poison OWNER TO pms_owner;
ALTER TABLE job_poison ENABLE ROW LEVEL SECURITY;
ALTER TABLE job_poison FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON job_poison TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON job_poison TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON job_poison TO pms_app;

CREATE TABLE job_rates (
  tenant_id uuid NOT NULL,
  key text NOT NULL,
  hits timestamp with time zone[] NOT NULL DEFAULT '{}'::timestamp with time zone[],
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT job_rates_pkey PRIMARY KEY (tenant_id, key),
  CONSTRAINT job_rates_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE job_rates OWNER TO pms_owner;
ALTER TABLE job_rates ENABLE ROW LEVEL SECURITY;
ALTER TABLE job_rates FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON job_rates TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON job_rates TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON job_rates TO pms_app;

CREATE TABLE leases (
  name text NOT NULL,
  holder uuid NOT NULL,
  epoch bigint NOT NULL DEFAULT 1,
  expires_at timestamp with time zone NOT NULL,
  CONSTRAINT leases_pkey PRIMARY KEY (name)
);
ALTER TABLE leases OWNER TO pms_owner;
GRANT INSERT, SELECT, UPDATE ON leases TO pms_jobs;
GRANT INSERT, SELECT, UPDATE ON leases TO pms_store;

CREATE TABLE license_events (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  at timestamp with time zone NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  outcome text NOT NULL,
  code text,
  jti text,
  seq bigint,
  kid text,
  detail jsonb NOT NULL DEFAULT '{}'::jsonb,
  once text,
  CONSTRAINT license_events_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT license_events_outcome_check CHECK ((outcome = ANY (ARRAY['ok'::text, 'refused'::text]))),
  CONSTRAINT license_events_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT license_events_tenant_id_once_key UNIQUE (tenant_id, once)
);
ALTER TABLE license_events OWNER TO pms_owner;
ALTER TABLE license_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE license_events FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON license_events TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON license_events TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT INSERT, SELECT ON license_events TO pms_app;

CREATE TABLE license_state (
  tenant_id uuid NOT NULL,
  install_id uuid NOT NULL,
  instance_key text,
  instance_jkt text,
  current_sub text,
  high_water bigint NOT NULL DEFAULT floor((EXTRACT(epoch FROM now()) * (1000)::numeric)),
  pending_minutes double precision NOT NULL DEFAULT 0,
  crl text,
  crl_seq bigint NOT NULL DEFAULT 0,
  noted_state text NOT NULL DEFAULT 'COMMUNITY'::text,
  revision bigint NOT NULL DEFAULT 0,
  CONSTRAINT license_state_pkey PRIMARY KEY (tenant_id),
  CONSTRAINT license_state_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE license_state OWNER TO pms_owner;
ALTER TABLE license_state ENABLE ROW LEVEL SECURITY;
ALTER TABLE license_state FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON license_state TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON license_state TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT SELECT, UPDATE ON license_state TO pms_app;

CREATE TABLE license_tokens (
  tenant_id uuid NOT NULL,
  jti uuid NOT NULL,
  sub text NOT NULL,
  seq bigint NOT NULL,
  kid text NOT NULL,
  token text NOT NULL,
  claims jsonb NOT NULL,
  source text NOT NULL,
  installed_at timestamp with time zone NOT NULL,
  installed_by text NOT NULL,
  removed_at timestamp with time zone,
  removed_by text,
  released_at timestamp with time zone,
  mismatch_since timestamp with time zone,
  bound_since timestamp with time zone,
  CONSTRAINT license_tokens_pkey PRIMARY KEY (tenant_id, jti),
  CONSTRAINT license_tokens_source_check CHECK ((source = ANY (ARRAY['upload'::text, 'file'::text, 'env'::text]))),
  CONSTRAINT license_tokens_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE license_tokens OWNER TO pms_owner;
ALTER TABLE license_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE license_tokens FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON license_tokens TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON license_tokens TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT INSERT, SELECT, UPDATE ON license_tokens TO pms_app;

CREATE TABLE license_usage_days (
  tenant_id uuid NOT NULL,
  day date NOT NULL,
  jti uuid NOT NULL,
  devices bigint NOT NULL,
  limit_devices bigint NOT NULL,
  CONSTRAINT license_usage_days_pkey PRIMARY KEY (tenant_id, day, jti),
  CONSTRAINT license_usage_days_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE license_usage_days OWNER TO pms_owner;
ALTER TABLE license_usage_days ENABLE ROW LEVEL SECURITY;
ALTER TABLE license_usage_days FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON license_usage_days TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON license_usage_days TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT INSERT, SELECT, UPDATE ON license_usage_days TO pms_app;

CREATE TABLE machine_events (
  tenant_id uuid NOT NULL,
  machine text NOT NULL,
  key text NOT NULL,
  id uuid NOT NULL,
  version integer NOT NULL,
  event text NOT NULL,
  from_state text NOT NULL,
  to_state text NOT NULL,
  actor text NOT NULL,
  idempotency_key text,
  outcome text NOT NULL,
  at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT machine_events_pkey PRIMARY KEY (tenant_id, machine, key, id),
  CONSTRAINT machine_events_outcome_check CHECK ((outcome = ANY (ARRAY['applied'::text, 'rejected'::text]))),
  CONSTRAINT machine_events_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE machine_events OWNER TO pms_owner;
ALTER TABLE machine_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE machine_events FORCE ROW LEVEL SECURITY;
CREATE INDEX machine_events_old ON public.machine_events USING btree (tenant_id, at);
CREATE UNIQUE INDEX machine_events_once ON public.machine_events USING btree (tenant_id, machine, key, idempotency_key) WHERE (idempotency_key IS NOT NULL);
CREATE POLICY maintenance ON machine_events TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON machine_events TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON machine_events TO pms_app;

CREATE TABLE machines (
  tenant_id uuid NOT NULL,
  machine text NOT NULL,
  key text NOT NULL,
  state text NOT NULL,
  version integer NOT NULL,
  data jsonb NOT NULL DEFAULT '{}'::jsonb,
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT machines_pkey PRIMARY KEY (tenant_id, machine, key),
  CONSTRAINT machines_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE machines OWNER TO pms_owner;
ALTER TABLE machines ENABLE ROW LEVEL SECURITY;
ALTER TABLE machines FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON machines TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON machines TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON machines TO pms_app;

CREATE TABLE module_migrations (
  module text NOT NULL,
  version integer NOT NULL,
  name text NOT NULL,
  checksum text NOT NULL,
  applied_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT module_migrations_pkey PRIMARY KEY (module, version)
);
ALTER TABLE module_migrations OWNER TO pms_owner;

CREATE TABLE notify_ack_tokens (
  tenant_id uuid NOT NULL,
  token_sha256 bytea NOT NULL,
  delivery_id uuid NOT NULL,
  group_id text NOT NULL,
  recipient text NOT NULL,
  expires_at timestamp with time zone NOT NULL,
  CONSTRAINT notify_ack_tokens_pkey PRIMARY KEY (tenant_id, token_sha256),
  CONSTRAINT notify_ack_tokens_tenant_id_delivery_id_fkey FOREIGN KEY (tenant_id, delivery_id) REFERENCES notify_deliveries(tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT notify_ack_tokens_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE notify_ack_tokens OWNER TO pms_owner;
ALTER TABLE notify_ack_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_ack_tokens FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_ack_tokens TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_ack_tokens TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_ack_tokens TO pms_app;

CREATE TABLE notify_alerts (
  tenant_id uuid NOT NULL,
  id text NOT NULL,
  status text NOT NULL,
  labels jsonb NOT NULL,
  data jsonb NOT NULL DEFAULT '{}'::jsonb,
  starts_at timestamp with time zone NOT NULL,
  ends_at timestamp with time zone,
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  acked_at timestamp with time zone,
  acked_by text,
  CONSTRAINT notify_alerts_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT notify_alerts_status_check CHECK ((status = ANY (ARRAY['firing'::text, 'resolved'::text]))),
  CONSTRAINT notify_alerts_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE notify_alerts OWNER TO pms_owner;
ALTER TABLE notify_alerts ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_alerts FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_alerts TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_alerts TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_alerts TO pms_app;

CREATE TABLE notify_attempts (
  tenant_id uuid NOT NULL,
  delivery_id uuid NOT NULL,
  no integer NOT NULL,
  at timestamp with time zone NOT NULL,
  outcome text NOT NULL,
  reason text,
  http_status integer,
  provider_code text,
  provider_message text,
  latency_ms integer NOT NULL,
  retry_after_ms bigint,
  CONSTRAINT notify_attempts_pkey PRIMARY KEY (tenant_id, delivery_id, no),
  CONSTRAINT notify_attempts_tenant_id_delivery_id_fkey FOREIGN KEY (tenant_id, delivery_id) REFERENCES notify_deliveries(tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT notify_attempts_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE notify_attempts OWNER TO pms_owner;
ALTER TABLE notify_attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_attempts FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_attempts TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_attempts TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_attempts TO pms_app;

CREATE TABLE notify_channels (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name text NOT NULL,
  type text NOT NULL,
  config jsonb NOT NULL DEFAULT '{}'::jsonb,
  sealed_secrets text,
  secret_tails jsonb NOT NULL DEFAULT '{}'::jsonb,
  rate jsonb,
  digest boolean,
  enabled boolean NOT NULL DEFAULT true,
  state text NOT NULL DEFAULT 'ready'::text,
  reason text,
  state_since timestamp with time zone NOT NULL DEFAULT now(),
  failures integer NOT NULL DEFAULT 0,
  failing_since timestamp with time zone,
  paused_until timestamp with time zone,
  pause_ms integer NOT NULL DEFAULT 0,
  last_sent_at timestamp with time zone,
  last_error text,
  callback_token text NOT NULL,
  version integer NOT NULL DEFAULT 1,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT notify_channels_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT notify_channels_state_check CHECK ((state = ANY (ARRAY['ready'::text, 'failing'::text, 'disabled'::text]))),
  CONSTRAINT notify_channels_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT notify_channels_tenant_id_name_key UNIQUE (tenant_id, name)
);
ALTER TABLE notify_channels OWNER TO pms_owner;
ALTER TABLE notify_channels ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_channels FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_channels TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_channels TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_channels TO pms_app;

CREATE TABLE notify_contact_points (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  user_id uuid NOT NULL,
  type text NOT NULL,
  address text NOT NULL,
  verified_at timestamp with time zone,
  code_hash text,
  code_expires_at timestamp with time zone,
  code_tries integer NOT NULL DEFAULT 0,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT notify_contact_points_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT notify_contact_points_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT notify_contact_points_tenant_id_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users(tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT notify_contact_points_tenant_id_user_id_type_address_key UNIQUE (tenant_id, user_id, type, address),
  CONSTRAINT notify_contact_points_type_check CHECK ((type = ANY (ARRAY['email'::text, 'sms'::text, 'telegram'::text])))
);
ALTER TABLE notify_contact_points OWNER TO pms_owner;
ALTER TABLE notify_contact_points ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_contact_points FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_contact_points TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_contact_points TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_contact_points TO pms_app;

CREATE TABLE notify_deliveries (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  message_id uuid NOT NULL,
  step integer NOT NULL DEFAULT 0,
  channel_id uuid NOT NULL,
  type text NOT NULL,
  user_id uuid,
  address text,
  priority smallint NOT NULL,
  state text NOT NULL,
  reason text,
  is_waiting boolean NOT NULL DEFAULT false,
  attempts integer NOT NULL DEFAULT 0,
  unknowns integer NOT NULL DEFAULT 0,
  provider_message_id text,
  provider_code text,
  next_at timestamp with time zone,
  expires_at timestamp with time zone NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  sent_at timestamp with time zone,
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  held_until timestamp with time zone,
  CONSTRAINT notify_deliveries_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT notify_deliveries_state_check CHECK ((state = ANY (ARRAY['accepted'::text, 'queued'::text, 'sending'::text, 'sent'::text, 'delivered'::text, 'read'::text, 'acked'::text, 'failed'::text, 'expired'::text, 'suppressed'::text, 'canceled'::text]))),
  CONSTRAINT notify_deliveries_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT notify_deliveries_tenant_id_message_id_fkey FOREIGN KEY (tenant_id, message_id) REFERENCES notify_messages(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE notify_deliveries OWNER TO pms_owner;
ALTER TABLE notify_deliveries ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_deliveries FORCE ROW LEVEL SECURITY;
CREATE INDEX notify_deliveries_held ON public.notify_deliveries USING btree (tenant_id, user_id, held_until) WHERE (held_until IS NOT NULL);
CREATE INDEX notify_deliveries_message ON public.notify_deliveries USING btree (tenant_id, message_id);
CREATE INDEX notify_deliveries_open ON public.notify_deliveries USING btree (tenant_id, state, created_at) WHERE (state = ANY (ARRAY['accepted'::text, 'queued'::text, 'sending'::text]));
CREATE INDEX notify_deliveries_provider ON public.notify_deliveries USING btree (tenant_id, channel_id, provider_message_id) WHERE (provider_message_id IS NOT NULL);
CREATE INDEX notify_deliveries_recent ON public.notify_deliveries USING btree (tenant_id, created_at);
CREATE INDEX notify_deliveries_waiting ON public.notify_deliveries USING btree (tenant_id, channel_id, priority, created_at) WHERE is_waiting;
CREATE POLICY maintenance ON notify_deliveries TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_deliveries TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_deliveries TO pms_app;

CREATE TABLE notify_escalations (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name text NOT NULL,
  steps jsonb NOT NULL,
  repeat integer NOT NULL DEFAULT 0,
  version integer NOT NULL DEFAULT 1,
  updated_by text NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT notify_escalations_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT notify_escalations_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT notify_escalations_tenant_id_name_key UNIQUE (tenant_id, name)
);
ALTER TABLE notify_escalations OWNER TO pms_owner;
ALTER TABLE notify_escalations ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_escalations FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_escalations TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_escalations TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_escalations TO pms_app;

CREATE TABLE notify_events (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  delivery_id uuid NOT NULL,
  kind text NOT NULL,
  detail text,
  at timestamp with time zone NOT NULL,
  CONSTRAINT notify_events_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT notify_events_tenant_id_delivery_id_fkey FOREIGN KEY (tenant_id, delivery_id) REFERENCES notify_deliveries(tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT notify_events_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE notify_events OWNER TO pms_owner;
ALTER TABLE notify_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_events FORCE ROW LEVEL SECURITY;
CREATE INDEX notify_events_delivery ON public.notify_events USING btree (tenant_id, delivery_id);
CREATE POLICY maintenance ON notify_events TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_events TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_events TO pms_app;

CREATE TABLE notify_groups (
  tenant_id uuid NOT NULL,
  id text NOT NULL,
  state jsonb NOT NULL,
  next_tick_at timestamp with time zone,
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT notify_groups_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT notify_groups_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE notify_groups OWNER TO pms_owner;
ALTER TABLE notify_groups ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_groups FORCE ROW LEVEL SECURITY;
CREATE INDEX notify_groups_due ON public.notify_groups USING btree (tenant_id, next_tick_at) WHERE (next_tick_at IS NOT NULL);
CREATE POLICY maintenance ON notify_groups TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_groups TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_groups TO pms_app;

CREATE TABLE notify_inbox (
  tenant_id uuid NOT NULL,
  user_id uuid NOT NULL,
  id uuid NOT NULL,
  title text NOT NULL,
  text text NOT NULL,
  priority smallint NOT NULL,
  links jsonb NOT NULL DEFAULT '[]'::jsonb,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  read_at timestamp with time zone,
  CONSTRAINT notify_inbox_pkey PRIMARY KEY (tenant_id, user_id, id),
  CONSTRAINT notify_inbox_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE notify_inbox OWNER TO pms_owner;
ALTER TABLE notify_inbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_inbox FORCE ROW LEVEL SECURITY;
CREATE INDEX notify_inbox_recent ON public.notify_inbox USING btree (tenant_id, user_id, created_at);
CREATE POLICY maintenance ON notify_inbox TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_inbox TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_inbox TO pms_app;

CREATE TABLE notify_messages (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  source text NOT NULL,
  topic text NOT NULL,
  event text NOT NULL,
  priority smallint NOT NULL,
  title text NOT NULL,
  text text NOT NULL,
  format text NOT NULL,
  resolved boolean NOT NULL DEFAULT false,
  links jsonb NOT NULL DEFAULT '[]'::jsonb,
  data jsonb NOT NULL DEFAULT '{}'::jsonb,
  plan jsonb NOT NULL DEFAULT '[]'::jsonb,
  fallback_after_ms bigint NOT NULL,
  step integer NOT NULL DEFAULT 0,
  dedup_key text,
  group_key text,
  scheduled_at timestamp with time zone,
  expires_at timestamp with time zone NOT NULL,
  created_by text NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  template text,
  CONSTRAINT notify_messages_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT notify_messages_source_check CHECK ((source = ANY (ARRAY['api'::text, 'alert'::text, 'system'::text, 'digest'::text]))),
  CONSTRAINT notify_messages_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE notify_messages OWNER TO pms_owner;
ALTER TABLE notify_messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_messages FORCE ROW LEVEL SECURITY;
CREATE INDEX notify_messages_dedup ON public.notify_messages USING btree (tenant_id, dedup_key, created_at) WHERE (dedup_key IS NOT NULL);
CREATE INDEX notify_messages_recent ON public.notify_messages USING btree (tenant_id, created_at);
CREATE POLICY maintenance ON notify_messages TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_messages TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_messages TO pms_app;

CREATE TABLE notify_preferences (
  tenant_id uuid NOT NULL,
  user_id uuid NOT NULL,
  document jsonb NOT NULL,
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT notify_preferences_pkey PRIMARY KEY (tenant_id, user_id),
  CONSTRAINT notify_preferences_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT notify_preferences_tenant_id_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE notify_preferences OWNER TO pms_owner;
ALTER TABLE notify_preferences ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_preferences FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_preferences TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_preferences TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_preferences TO pms_app;

CREATE TABLE notify_routing (
  tenant_id uuid NOT NULL,
  document jsonb NOT NULL,
  version integer NOT NULL DEFAULT 1,
  updated_by text NOT NULL DEFAULT 'system'::text,
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT notify_routing_pkey PRIMARY KEY (tenant_id),
  CONSTRAINT notify_routing_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE notify_routing OWNER TO pms_owner;
ALTER TABLE notify_routing ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_routing FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_routing TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_routing TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_routing TO pms_app;

CREATE TABLE notify_send_keys (
  tenant_id uuid NOT NULL,
  api_key_id uuid NOT NULL,
  receiver text NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT notify_send_keys_pkey PRIMARY KEY (tenant_id, api_key_id),
  CONSTRAINT notify_send_keys_tenant_id_api_key_id_fkey FOREIGN KEY (tenant_id, api_key_id) REFERENCES api_keys(tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT notify_send_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE notify_send_keys OWNER TO pms_owner;
ALTER TABLE notify_send_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_send_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_send_keys TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_send_keys TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_send_keys TO pms_app;

CREATE TABLE notify_silences (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  matchers jsonb NOT NULL,
  starts_at timestamp with time zone NOT NULL,
  ends_at timestamp with time zone NOT NULL,
  comment text NOT NULL,
  author_id uuid NOT NULL,
  author text NOT NULL,
  history jsonb NOT NULL DEFAULT '[]'::jsonb,
  version integer NOT NULL DEFAULT 1,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT notify_silences_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT notify_silences_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE notify_silences OWNER TO pms_owner;
ALTER TABLE notify_silences ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_silences FORCE ROW LEVEL SECURITY;
CREATE INDEX notify_silences_open ON public.notify_silences USING btree (tenant_id, ends_at);
CREATE POLICY maintenance ON notify_silences TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_silences TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_silences TO pms_app;

CREATE TABLE notify_suppressions (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  type text NOT NULL,
  address text NOT NULL,
  reason text NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT notify_suppressions_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT notify_suppressions_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT notify_suppressions_tenant_id_type_address_key UNIQUE (tenant_id, type, address)
);
ALTER TABLE notify_suppressions OWNER TO pms_owner;
ALTER TABLE notify_suppressions ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_suppressions FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_suppressions TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_suppressions TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_suppressions TO pms_app;

CREATE TABLE notify_template_versions (
  tenant_id uuid NOT NULL,
  template_id uuid NOT NULL,
  version integer NOT NULL,
  locales jsonb NOT NULL,
  example jsonb NOT NULL,
  updated_by text NOT NULL,
  at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT notify_template_versions_pkey PRIMARY KEY (tenant_id, template_id, version),
  CONSTRAINT notify_template_versions_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT notify_template_versions_tenant_id_template_id_fkey FOREIGN KEY (tenant_id, template_id) REFERENCES notify_templates(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE notify_template_versions OWNER TO pms_owner;
ALTER TABLE notify_template_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_template_versions FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_template_versions TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_template_versions TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_template_versions TO pms_app;

CREATE TABLE notify_templates (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name text NOT NULL,
  topic text NOT NULL DEFAULT 'message'::text,
  locales jsonb NOT NULL,
  example jsonb NOT NULL DEFAULT '{}'::jsonb,
  version integer NOT NULL DEFAULT 1,
  updated_by text NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT notify_templates_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT notify_templates_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT notify_templates_tenant_id_name_key UNIQUE (tenant_id, name)
);
ALTER TABLE notify_templates OWNER TO pms_owner;
ALTER TABLE notify_templates ENABLE ROW LEVEL SECURITY;
ALTER TABLE notify_templates FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON notify_templates TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON notify_templates TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON notify_templates TO pms_app;

CREATE TABLE one_time_links (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL,
  user_id uuid,
  email text,
  token_sha256 bytea NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  expires_at timestamp with time zone NOT NULL,
  CONSTRAINT one_time_links_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT one_time_links_kind_check CHECK ((kind = ANY (ARRAY['setup'::text, 'reset'::text]))),
  CONSTRAINT one_time_links_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT one_time_links_tenant_id_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE one_time_links OWNER TO pms_owner;
ALTER TABLE one_time_links ENABLE ROW LEVEL SECURITY;
ALTER TABLE one_time_links FORCE ROW LEVEL SECURITY;
CREATE UNIQUE INDEX one_time_links_token ON public.one_time_links USING btree (token_sha256);
CREATE POLICY maintenance ON one_time_links TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON one_time_links TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON one_time_links TO pms_app;

CREATE TABLE operations (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL,
  state text NOT NULL,
  input jsonb NOT NULL,
  cursor jsonb,
  done integer NOT NULL DEFAULT 0,
  total integer,
  result jsonb,
  failures jsonb NOT NULL DEFAULT '[]'::jsonb,
  failure_count integer NOT NULL DEFAULT 0,
  cancels boolean NOT NULL DEFAULT false,
  created_by_id uuid NOT NULL,
  created_by text NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  started_at timestamp with time zone,
  finished_at timestamp with time zone,
  CONSTRAINT operations_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT operations_state_check CHECK ((state = ANY (ARRAY['queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'canceled'::text]))),
  CONSTRAINT operations_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE operations OWNER TO pms_owner;
ALTER TABLE operations ENABLE ROW LEVEL SECURITY;
ALTER TABLE operations FORCE ROW LEVEL SECURITY;
CREATE INDEX operations_recent ON public.operations USING btree (tenant_id, created_at);
CREATE POLICY maintenance ON operations TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON operations TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON operations TO pms_app;

CREATE TABLE ota_devices (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  kind text NOT NULL,
  own_package_id uuid,
  package_id uuid,
  offered_at timestamp with time zone,
  state text NOT NULL DEFAULT 'QUEUED'::text,
  state_at timestamp with time zone NOT NULL DEFAULT now(),
  error text,
  bytes_sent bigint NOT NULL DEFAULT 0,
  current_title text,
  current_version text,
  CONSTRAINT ota_devices_pkey PRIMARY KEY (tenant_id, device_id, kind),
  CONSTRAINT ota_devices_kind_check CHECK ((kind = ANY (ARRAY['firmware'::text, 'software'::text]))),
  CONSTRAINT ota_devices_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT ota_devices_tenant_id_own_package_id_fkey FOREIGN KEY (tenant_id, own_package_id) REFERENCES ota_packages(tenant_id, id)
);
ALTER TABLE ota_devices OWNER TO pms_owner;
ALTER TABLE ota_devices ENABLE ROW LEVEL SECURITY;
ALTER TABLE ota_devices FORCE ROW LEVEL SECURITY;
CREATE INDEX ota_devices_own ON public.ota_devices USING btree (tenant_id, own_package_id) WHERE (own_package_id IS NOT NULL);
CREATE INDEX ota_devices_package ON public.ota_devices USING btree (tenant_id, package_id, state) WHERE (package_id IS NOT NULL);
CREATE POLICY maintenance ON ota_devices TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON ota_devices TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON ota_devices TO pms_app;

CREATE TABLE ota_events (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL,
  at timestamp with time zone NOT NULL,
  package_id uuid,
  event text NOT NULL,
  detail jsonb NOT NULL DEFAULT '{}'::jsonb,
  CONSTRAINT ota_events_pkey PRIMARY KEY (tenant_id, device_id, id),
  CONSTRAINT ota_events_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE ota_events OWNER TO pms_owner;
ALTER TABLE ota_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE ota_events FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON ota_events TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON ota_events TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON ota_events TO pms_app;

CREATE TABLE ota_packages (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  product_id uuid NOT NULL,
  kind text NOT NULL,
  title text NOT NULL,
  version text NOT NULL,
  tag text,
  url text,
  checksum_algorithm text NOT NULL,
  checksum text,
  size_bytes bigint,
  file_name text,
  content_type text,
  content_id uuid,
  upload_id uuid,
  upload_at timestamp with time zone,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT ota_packages_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT ota_packages_check CHECK (((url IS NULL) OR (content_id IS NULL))),
  CONSTRAINT ota_packages_kind_check CHECK ((kind = ANY (ARRAY['firmware'::text, 'software'::text]))),
  CONSTRAINT ota_packages_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT ota_packages_tenant_id_product_id_fkey FOREIGN KEY (tenant_id, product_id) REFERENCES products(tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT ota_packages_tenant_id_product_id_kind_title_version_key UNIQUE (tenant_id, product_id, kind, title, version)
);
ALTER TABLE ota_packages OWNER TO pms_owner;
ALTER TABLE ota_packages ENABLE ROW LEVEL SECURITY;
ALTER TABLE ota_packages FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON ota_packages TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON ota_packages TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON ota_packages TO pms_app;

CREATE TABLE ota_parts (
  tenant_id uuid NOT NULL,
  package_id uuid NOT NULL,
  content_id uuid NOT NULL,
  no integer NOT NULL,
  bytes bytea NOT NULL,
  CONSTRAINT ota_parts_pkey PRIMARY KEY (tenant_id, content_id, no),
  CONSTRAINT ota_parts_tenant_id_package_id_fkey FOREIGN KEY (tenant_id, package_id) REFERENCES ota_packages(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE ota_parts OWNER TO pms_owner;
ALTER TABLE ota_parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE ota_parts FORCE ROW LEVEL SECURITY;
CREATE INDEX ota_parts_package ON public.ota_parts USING btree (tenant_id, package_id, content_id);
CREATE POLICY maintenance ON ota_parts TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON ota_parts TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON ota_parts TO pms_app;

CREATE TABLE products (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name text NOT NULL,
  description text NOT NULL DEFAULT ''::text,
  is_default boolean NOT NULL DEFAULT false,
  settings jsonb NOT NULL DEFAULT '{}'::jsonb,
  inactivity_timeout_ms bigint NOT NULL DEFAULT 600000,
  version integer NOT NULL DEFAULT 1,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  provisioning_sha256 bytea,
  CONSTRAINT products_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT products_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE products OWNER TO pms_owner;
ALTER TABLE products ENABLE ROW LEVEL SECURITY;
ALTER TABLE products FORCE ROW LEVEL SECURITY;
CREATE UNIQUE INDEX products_default ON public.products USING btree (tenant_id) WHERE is_default;
CREATE UNIQUE INDEX products_name ON public.products USING btree (tenant_id, name);
CREATE UNIQUE INDEX products_provisioning ON public.products USING btree (provisioning_sha256) WHERE (provisioning_sha256 IS NOT NULL);
CREATE POLICY maintenance ON products TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON products TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON products TO pms_app;

CREATE TABLE refresh_tokens (
  tenant_id uuid NOT NULL,
  token_sha256 bytea NOT NULL,
  session_id uuid NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  used_at timestamp with time zone,
  used_address text,
  used_agent text,
  CONSTRAINT refresh_tokens_pkey PRIMARY KEY (tenant_id, token_sha256),
  CONSTRAINT refresh_tokens_tenant_id_session_id_fkey FOREIGN KEY (tenant_id, session_id) REFERENCES user_sessions(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE refresh_tokens OWNER TO pms_owner;
ALTER TABLE refresh_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE refresh_tokens FORCE ROW LEVEL SECURITY;
CREATE INDEX refresh_tokens_session ON public.refresh_tokens USING btree (tenant_id, session_id);
CREATE POLICY maintenance ON refresh_tokens TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON refresh_tokens TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON refresh_tokens TO pms_app;

CREATE TABLE retention_rules (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  product_id uuid,
  key_pattern text,
  keep_days integer,
  version integer NOT NULL DEFAULT 1,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT retention_rules_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT retention_rules_keep_days_check CHECK ((keep_days >= 1)),
  CONSTRAINT retention_rules_key_pattern_check CHECK ((key_pattern <> ''::text)),
  CONSTRAINT retention_rules_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT retention_rules_tenant_id_product_id_fkey FOREIGN KEY (tenant_id, product_id) REFERENCES products(tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT retention_rules_tenant_id_product_id_key_pattern_key UNIQUE NULLS NOT DISTINCT (tenant_id, product_id, key_pattern)
);
ALTER TABLE retention_rules OWNER TO pms_owner;
ALTER TABLE retention_rules ENABLE ROW LEVEL SECURITY;
ALTER TABLE retention_rules FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON retention_rules TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON retention_rules TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON retention_rules TO pms_app;

CREATE TABLE rule_checkpoints (
  name text NOT NULL,
  segment_no integer NOT NULL,
  seq integer NOT NULL,
  at timestamp with time zone NOT NULL,
  CONSTRAINT rule_checkpoints_pkey PRIMARY KEY (name)
);
ALTER TABLE rule_checkpoints OWNER TO pms_owner;
GRANT DELETE, INSERT, SELECT, UPDATE ON rule_checkpoints TO pms_jobs;
GRANT SELECT ON rule_checkpoints TO pms_store;

CREATE TABLE rule_dry_runs (
  tenant_id uuid NOT NULL,
  rule_id uuid NOT NULL,
  id uuid NOT NULL,
  device_id uuid NOT NULL,
  kind text NOT NULL,
  data jsonb NOT NULL DEFAULT '{}'::jsonb,
  at timestamp with time zone NOT NULL,
  CONSTRAINT rule_dry_runs_pkey PRIMARY KEY (tenant_id, rule_id, id),
  CONSTRAINT rule_dry_runs_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT rule_dry_runs_tenant_id_rule_id_fkey FOREIGN KEY (tenant_id, rule_id) REFERENCES rules(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE rule_dry_runs OWNER TO pms_owner;
ALTER TABLE rule_dry_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE rule_dry_runs FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON rule_dry_runs TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON rule_dry_runs TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON rule_dry_runs TO pms_app;

CREATE TABLE rule_runs (
  tenant_id uuid NOT NULL,
  key text NOT NULL,
  id uuid NOT NULL,
  rule_id uuid,
  alarm_id uuid NOT NULL,
  device_id uuid,
  type text NOT NULL,
  outcome text NOT NULL,
  detail text,
  at timestamp with time zone NOT NULL,
  CONSTRAINT rule_runs_pkey PRIMARY KEY (tenant_id, key),
  CONSTRAINT rule_runs_outcome_check CHECK ((outcome = ANY (ARRAY['done'::text, 'failed'::text, 'suppressed'::text]))),
  CONSTRAINT rule_runs_tenant_id_alarm_id_fkey FOREIGN KEY (tenant_id, alarm_id) REFERENCES alarms(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE rule_runs OWNER TO pms_owner;
ALTER TABLE rule_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE rule_runs FORCE ROW LEVEL SECURITY;
CREATE INDEX rule_runs_pair ON public.rule_runs USING btree (tenant_id, rule_id, device_id, at);
CREATE INDEX rule_runs_rule ON public.rule_runs USING btree (tenant_id, rule_id, id);
CREATE POLICY maintenance ON rule_runs TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON rule_runs TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON rule_runs TO pms_app;

CREATE TABLE rule_states (
  tenant_id uuid NOT NULL,
  rule_id uuid NOT NULL,
  device_id uuid NOT NULL,
  version integer NOT NULL,
  state jsonb NOT NULL,
  at bigint NOT NULL,
  active_since bigint NOT NULL,
  CONSTRAINT rule_states_pkey PRIMARY KEY (tenant_id, rule_id, device_id),
  CONSTRAINT rule_states_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT rule_states_tenant_id_rule_id_fkey FOREIGN KEY (tenant_id, rule_id) REFERENCES rules(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE rule_states OWNER TO pms_owner;
ALTER TABLE rule_states ENABLE ROW LEVEL SECURITY;
ALTER TABLE rule_states FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON rule_states TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON rule_states TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON rule_states TO pms_app;

CREATE TABLE rule_values (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  slots jsonb NOT NULL,
  CONSTRAINT rule_values_pkey PRIMARY KEY (tenant_id, device_id),
  CONSTRAINT rule_values_tenant_id_device_id_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES devices(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE rule_values OWNER TO pms_owner;
ALTER TABLE rule_values ENABLE ROW LEVEL SECURITY;
ALTER TABLE rule_values FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON rule_values TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON rule_values TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON rule_values TO pms_app;

CREATE TABLE rule_versions (
  tenant_id uuid NOT NULL,
  rule_id uuid NOT NULL,
  version integer NOT NULL,
  document jsonb NOT NULL,
  author text NOT NULL,
  note text NOT NULL DEFAULT ''::text,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT rule_versions_pkey PRIMARY KEY (tenant_id, rule_id, version),
  CONSTRAINT rule_versions_tenant_id_rule_id_fkey FOREIGN KEY (tenant_id, rule_id) REFERENCES rules(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE rule_versions OWNER TO pms_owner;
ALTER TABLE rule_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE rule_versions FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON rule_versions TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON rule_versions TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON rule_versions TO pms_app;

CREATE TABLE rules (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL,
  name text NOT NULL,
  mode text NOT NULL,
  document jsonb NOT NULL,
  version integer NOT NULL DEFAULT 1,
  failure text,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_by text NOT NULL,
  deleted_at timestamp with time zone,
  CONSTRAINT rules_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT rules_kind_check CHECK ((kind = ANY (ARRAY['alarm'::text, 'calculated'::text]))),
  CONSTRAINT rules_mode_check CHECK ((mode = ANY (ARRAY['on'::text, 'dryRun'::text, 'off'::text]))),
  CONSTRAINT rules_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE rules OWNER TO pms_owner;
ALTER TABLE rules ENABLE ROW LEVEL SECURITY;
ALTER TABLE rules FORCE ROW LEVEL SECURITY;
CREATE UNIQUE INDEX rules_name ON public.rules USING btree (tenant_id, name) WHERE (deleted_at IS NULL);
CREATE POLICY maintenance ON rules TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON rules TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON rules TO pms_app;

CREATE TABLE schedules (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name text NOT NULL,
  queue text NOT NULL,
  cron text NOT NULL,
  zone text NOT NULL,
  data jsonb NOT NULL DEFAULT '{}'::jsonb,
  missed text NOT NULL DEFAULT 'once'::text,
  overlap text NOT NULL DEFAULT 'skip'::text,
  jitter_ms integer NOT NULL DEFAULT 0,
  owner_id uuid,
  enabled boolean NOT NULL DEFAULT true,
  next_at timestamp with time zone,
  last_at timestamp with time zone,
  last_job_id uuid,
  last_outcome text,
  version integer NOT NULL DEFAULT 1,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT schedules_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT schedules_missed_check CHECK ((missed = ANY (ARRAY['once'::text, 'skip'::text]))),
  CONSTRAINT schedules_overlap_check CHECK ((overlap = ANY (ARRAY['allow'::text, 'skip'::text]))),
  CONSTRAINT schedules_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id),
  CONSTRAINT schedules_tenant_id_name_key UNIQUE (tenant_id, name)
);
ALTER TABLE schedules OWNER TO pms_owner;
ALTER TABLE schedules ENABLE ROW LEVEL SECURITY;
ALTER TABLE schedules FORCE ROW LEVEL SECURITY;
CREATE INDEX schedules_due ON public.schedules USING btree (tenant_id, next_at) WHERE (enabled AND (next_at IS NOT NULL));
CREATE POLICY maintenance ON schedules TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON schedules TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON schedules TO pms_app;

CREATE TABLE schema_version (
  version integer NOT NULL,
  name text NOT NULL,
  checksum text NOT NULL,
  applied_at timestamp with time zone NOT NULL DEFAULT now(),
  min_server text,
  CONSTRAINT schema_version_pkey PRIMARY KEY (version)
);
ALTER TABLE schema_version OWNER TO CURRENT_USER;
GRANT SELECT ON schema_version TO pms_jobs;

CREATE TABLE security_events (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  at timestamp with time zone NOT NULL DEFAULT now(),
  actor text NOT NULL,
  action text NOT NULL,
  target text NOT NULL,
  outcome text NOT NULL,
  address text NOT NULL,
  request_id text NOT NULL,
  detail jsonb NOT NULL DEFAULT '{}'::jsonb,
  CONSTRAINT security_events_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT security_events_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE security_events OWNER TO pms_owner;
ALTER TABLE security_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE security_events FORCE ROW LEVEL SECURITY;
CREATE INDEX security_events_at ON public.security_events USING btree (tenant_id, at);
CREATE POLICY maintenance ON security_events TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON security_events TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON security_events TO pms_app;

CREATE TABLE state_documents (
  tenant_id uuid NOT NULL,
  scope text NOT NULL,
  key text NOT NULL,
  value jsonb NOT NULL,
  version bigint NOT NULL DEFAULT 1,
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT state_documents_pkey PRIMARY KEY (tenant_id, scope, key),
  CONSTRAINT state_documents_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE state_documents OWNER TO pms_owner;
ALTER TABLE state_documents ENABLE ROW LEVEL SECURITY;
ALTER TABLE state_documents FORCE ROW LEVEL SECURITY;
CREATE POLICY maintenance ON state_documents TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON state_documents TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON state_documents TO pms_app;

CREATE TABLE telemetry_chunks (
  tenant_no integer NOT NULL,
  device_no integer NOT NULL,
  key_no integer NOT NULL,
  count integer NOT NULL,
  first_ts bigint NOT NULL,
  last_ts bigint NOT NULL,
  min double precision,
  max double precision,
  sum double precision,
  growth double precision,
  kinds smallint NOT NULL,
  ends bytea,
  hour_marks integer[] NOT NULL,
  hour_values double precision[],
  points bytea NOT NULL,
  CONSTRAINT telemetry_chunks_pkey PRIMARY KEY (tenant_no, device_no, key_no, first_ts),
  CONSTRAINT telemetry_chunks_check CHECK (((first_ts <= last_ts) AND (count > 0)))
);
ALTER TABLE telemetry_chunks OWNER TO pms_store;
GRANT SELECT ON telemetry_chunks TO pms_owner;

CREATE TABLE telemetry_damaged_chunks (
  tenant_no integer NOT NULL,
  device_no integer NOT NULL,
  key_no integer NOT NULL,
  count integer NOT NULL,
  first_ts bigint NOT NULL,
  last_ts bigint NOT NULL,
  min double precision,
  max double precision,
  sum double precision,
  growth double precision,
  kinds smallint NOT NULL,
  ends bytea,
  hour_marks integer[] NOT NULL,
  hour_values double precision[],
  points bytea NOT NULL,
  found_at timestamp with time zone NOT NULL DEFAULT now(),
  reason text NOT NULL,
  CONSTRAINT telemetry_damaged_chunks_pkey PRIMARY KEY (tenant_no, device_no, key_no, first_ts, found_at)
);
ALTER TABLE telemetry_damaged_chunks OWNER TO pms_store;

CREATE TABLE telemetry_device_keys (
  tenant_no integer NOT NULL,
  device_no integer NOT NULL,
  key_no integer NOT NULL,
  CONSTRAINT telemetry_device_keys_pkey PRIMARY KEY (tenant_no, device_no, key_no)
);
ALTER TABLE telemetry_device_keys OWNER TO pms_store;

CREATE TABLE telemetry_keys (
  tenant_no integer NOT NULL,
  key_no integer NOT NULL GENERATED AS IDENTITY,
  key text NOT NULL,
  CONSTRAINT telemetry_keys_pkey PRIMARY KEY (tenant_no, key_no)
);
ALTER TABLE telemetry_keys OWNER TO pms_store;
CREATE UNIQUE INDEX telemetry_keys_key ON public.telemetry_keys USING btree (tenant_no, key);
GRANT SELECT ON telemetry_keys TO pms_owner;

CREATE TABLE telemetry_segment_1 (
  tenant_no integer NOT NULL,
  device_no integer NOT NULL,
  seq integer NOT NULL,
  first_ts bigint NOT NULL,
  last_ts bigint NOT NULL,
  points bytea NOT NULL
);
ALTER TABLE telemetry_segment_1 OWNER TO pms_store;
GRANT INSERT ON telemetry_segment_1 TO pms_ingest;

CREATE TABLE telemetry_segments (
  segment_no integer NOT NULL GENERATED AS IDENTITY,
  state text NOT NULL DEFAULT 'active'::text,
  owner uuid NOT NULL,
  opened_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  sealed_at timestamp with time zone,
  compacted_at timestamp with time zone,
  row_count bigint,
  size_bytes bigint,
  first_ts bigint,
  last_ts bigint,
  CONSTRAINT telemetry_segments_pkey PRIMARY KEY (segment_no),
  CONSTRAINT telemetry_segments_state_check CHECK ((state = ANY (ARRAY['active'::text, 'sealed'::text, 'compacted'::text])))
);
ALTER TABLE telemetry_segments OWNER TO pms_store;

CREATE TABLE tenants (
  id uuid NOT NULL,
  number integer NOT NULL GENERATED AS IDENTITY,
  slug text NOT NULL,
  name text NOT NULL,
  root boolean NOT NULL DEFAULT false,
  status text NOT NULL DEFAULT 'active'::text,
  time_zone text NOT NULL DEFAULT 'UTC'::text,
  locale text NOT NULL DEFAULT 'zh'::text,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT tenants_pkey PRIMARY KEY (id),
  CONSTRAINT tenants_number_key UNIQUE (number),
  CONSTRAINT tenants_slug_key UNIQUE (slug)
);
ALTER TABLE tenants OWNER TO pms_owner;
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON tenants TO pms_jobs USING (true);
CREATE POLICY maintenance ON tenants TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON tenants TO pms_app USING ((id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT SELECT, UPDATE ON tenants TO pms_app;
GRANT SELECT ON tenants TO pms_jobs;

CREATE TABLE user_sessions (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  user_id uuid NOT NULL,
  method text NOT NULL,
  address text NOT NULL,
  user_agent text NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  last_used_at timestamp with time zone NOT NULL DEFAULT now(),
  authenticated_at timestamp with time zone NOT NULL DEFAULT now(),
  expires_at timestamp with time zone NOT NULL,
  CONSTRAINT user_sessions_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT user_sessions_tenant_id_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users(tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE user_sessions OWNER TO pms_owner;
ALTER TABLE user_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE user_sessions FORCE ROW LEVEL SECURITY;
CREATE INDEX user_sessions_user ON public.user_sessions USING btree (tenant_id, user_id);
CREATE POLICY maintenance ON user_sessions TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON user_sessions TO pms_app USING ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid)) WITH CHECK ((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid));
GRANT DELETE, INSERT, SELECT, UPDATE ON user_sessions TO pms_app;

CREATE TABLE users (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  customer_id uuid,
  email text NOT NULL,
  name text NOT NULL,
  role text NOT NULL,
  password_hash text,
  language text,
  prefs jsonb NOT NULL DEFAULT '{}'::jsonb,
  session_version integer NOT NULL DEFAULT 1,
  disabled_at timestamp with time zone,
  last_login_at timestamp with time zone,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT users_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT users_role_check CHECK ((role = ANY (ARRAY['viewer'::text, 'operator'::text, 'admin'::text]))),
  CONSTRAINT users_tenant_id_customer_id_fkey FOREIGN KEY (tenant_id, customer_id) REFERENCES customers(tenant_id, id),
  CONSTRAINT users_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);
ALTER TABLE users OWNER TO pms_owner;
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
CREATE UNIQUE INDEX users_email ON public.users USING btree (tenant_id, lower(email));
CREATE POLICY maintenance ON users TO pms_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant ON users TO pms_app USING (((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid) AND ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text) IS NULL) OR (customer_id = ANY ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text))::uuid[]))))) WITH CHECK (((tenant_id = (NULLIF(current_setting('iot_pms.tenant_id'::text, true), ''::text))::uuid) AND ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text) IS NULL) OR (customer_id = ANY ((NULLIF(current_setting('iot_pms.customer_ids'::text, true), ''::text))::uuid[])))));
GRANT DELETE, INSERT, SELECT, UPDATE ON users TO pms_app;

CREATE OR REPLACE FUNCTION public.analyze_device_tables()
 RETURNS void
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog'
AS $function$
  ANALYZE public.devices, public.device_credentials, public.device_log, public.device_attributes, public.device_rejects
$function$;
-- owner pms_owner; execute: pms_jobs (analyze_device_tables())

CREATE OR REPLACE FUNCTION public.license_counts(OUT devices bigint, OUT users bigint, OUT tenants bigint)
 RETURNS record
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog'
AS $function$
  SELECT public.license_device_count(), (SELECT count(*) FROM public.users), (SELECT count(*) FROM public.tenants)
$function$;
-- owner pms_owner; execute: pms_app (license_counts())

CREATE OR REPLACE FUNCTION public.license_device_count()
 RETURNS bigint
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog'
AS $function$
  SELECT count(*) FROM public.devices WHERE deleted_at IS NULL AND NOT is_demo
$function$;
-- owner pms_owner; execute: pms_app (license_device_count())

CREATE OR REPLACE FUNCTION public.license_note_usage(day date, jti uuid, devices bigint, limit_devices bigint)
 RETURNS void
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog'
AS $function$
  INSERT INTO public.license_usage_days AS u (tenant_id, day, jti, devices, limit_devices)
  SELECT t.id, $1, $2, $3, $4 FROM public.tenants t WHERE t.root
  ON CONFLICT (tenant_id, day, jti) DO UPDATE SET devices = greatest(u.devices, excluded.devices), limit_devices = excluded.limit_devices
  WHERE u.devices < excluded.devices OR u.limit_devices <> excluded.limit_devices
$function$;
-- owner pms_owner; execute: pms_app (license_note_usage(date,uuid,bigint,bigint))

CREATE OR REPLACE FUNCTION public.protect_customer_table(table_name regclass)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog'
AS $function$
DECLARE
  condition text := '(tenant_id = nullif(current_setting(''iot_pms.tenant_id'', true), '''')::uuid
    AND (nullif(current_setting(''iot_pms.customer_ids'', true), '''') IS NULL
      OR customer_id = ANY (nullif(current_setting(''iot_pms.customer_ids'', true), '''')::uuid[])))';
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', table_name);
  EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', table_name);
  EXECUTE format('CREATE POLICY tenant ON %s TO pms_app USING %s WITH CHECK %s', table_name, condition, condition);
  EXECUTE format('CREATE POLICY maintenance ON %s TO pms_owner USING (true) WITH CHECK (true)', table_name);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO pms_app', table_name);
END
$function$;
-- owner pms_owner (protect_customer_table(regclass))

CREATE OR REPLACE FUNCTION public.protect_tenant_table(table_name regclass)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog'
AS $function$
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', table_name);
  EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', table_name);
  EXECUTE format('CREATE POLICY tenant ON %s TO pms_app
    USING (tenant_id = nullif(current_setting(''iot_pms.tenant_id'', true), '''')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting(''iot_pms.tenant_id'', true), '''')::uuid)', table_name);
  EXECUTE format('CREATE POLICY maintenance ON %s TO pms_owner USING (true) WITH CHECK (true)', table_name);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO pms_app', table_name);
END
$function$;
-- owner pms_owner (protect_tenant_table(regclass))

CREATE OR REPLACE FUNCTION public.telemetry_chunks_of(device integer, number integer, from_ts bigint, to_ts bigint, max_rows integer, newest_first boolean, points_over bigint)
 RETURNS TABLE(first_ts bigint, last_ts bigint, count integer, kinds smallint, min double precision, max double precision, sum double precision, growth double precision, ends bytea, hour_marks integer[], hour_values double precision[], points bytea)
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog'
AS $function$
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
$function$;
-- owner pms_store; execute: pms_app (telemetry_chunks_of(integer,integer,bigint,bigint,integer,boolean,bigint))

CREATE OR REPLACE FUNCTION public.telemetry_drop_first_store()
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog'
AS $function$
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
$function$;
-- owner pms_store (telemetry_drop_first_store())

CREATE OR REPLACE FUNCTION public.telemetry_has_few_keys(device integer, most integer)
 RETURNS boolean
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog'
AS $function$
  SELECT count(*) <= most FROM (
    SELECT FROM public.telemetry_device_keys d WHERE d.tenant_no = public.telemetry_tenant() AND d.device_no = device LIMIT most + 1) k
$function$;
-- owner pms_store; execute: pms_app (telemetry_has_few_keys(integer,integer))

CREATE OR REPLACE FUNCTION public.telemetry_key_no(name text)
 RETURNS integer
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog'
AS $function$
  SELECT k.key_no FROM public.telemetry_keys k WHERE k.tenant_no = public.telemetry_tenant() AND k.key = name
$function$;
-- owner pms_store; execute: pms_app (telemetry_key_no(text))

CREATE OR REPLACE FUNCTION public.telemetry_last_chunks(devices integer[], names text[], max_keys integer, after_key integer, max_rows integer)
 RETURNS TABLE(device_no integer, key text, key_no integer, first_ts bigint, last_ts bigint, ends bytea)
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog'
AS $function$
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
$function$;
-- owner pms_store; execute: pms_app (telemetry_last_chunks(integer[],text[],integer,integer,integer))

CREATE OR REPLACE FUNCTION public.telemetry_load_keys(tenants integer[], devices integer[])
 RETURNS TABLE(device_no integer, key text, key_no integer)
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog'
AS $function$
  SELECT d.device_no, k.key, d.key_no FROM unnest(tenants, devices) AS n (tenant, device)
    CROSS JOIN LATERAL (SELECT o.* FROM public.telemetry_device_keys o
      WHERE o.tenant_no = n.tenant AND o.device_no = n.device OFFSET 0) d
    JOIN public.telemetry_keys k ON k.tenant_no = d.tenant_no AND k.key_no = d.key_no
$function$;
-- owner pms_store; execute: pms_ingest (telemetry_load_keys(integer[],integer[]))

CREATE OR REPLACE FUNCTION public.telemetry_register_keys(tenants integer[], devices integer[], names text[])
 RETURNS TABLE(device_no integer, key text, key_no integer)
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog'
AS $function$
  INSERT INTO public.telemetry_keys (tenant_no, key)
    SELECT DISTINCT n.tenant, n.key FROM unnest(tenants, names) AS n (tenant, key) ORDER BY n.tenant, n.key ON CONFLICT DO NOTHING;
  INSERT INTO public.telemetry_device_keys (tenant_no, device_no, key_no)
    SELECT n.tenant, n.device, k.key_no FROM unnest(tenants, devices, names) AS n (tenant, device, key)
    JOIN public.telemetry_keys k ON k.tenant_no = n.tenant AND k.key = n.key
    ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING;
  SELECT n.device, k.key, k.key_no FROM unnest(tenants, devices, names) AS n (tenant, device, key)
    JOIN public.telemetry_keys k ON k.tenant_no = n.tenant AND k.key = n.key
$function$;
-- owner pms_store; execute: pms_ingest (telemetry_register_keys(integer[],integer[],text[]))

CREATE OR REPLACE FUNCTION public.telemetry_tail(devices integer[], from_ts bigint, to_ts bigint, most_bytes bigint DEFAULT NULL::bigint)
 RETURNS TABLE(device_no integer, points bytea)
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog'
AS $function$
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
$function$;
-- owner pms_store; execute: pms_app (telemetry_tail(integer[],bigint,bigint,bigint))

CREATE OR REPLACE FUNCTION public.telemetry_tenant()
 RETURNS integer
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog'
AS $function$
  SELECT nullif(current_setting('iot_pms.tenant_no', true), '')::int4
$function$;
-- owner pms_store; execute: pms_app (telemetry_tenant())
