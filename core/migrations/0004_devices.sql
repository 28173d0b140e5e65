-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- `settings` holds what a product changes of the defaults: transport, payload, limits, model.
CREATE TABLE products (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  name text NOT NULL,
  description text NOT NULL DEFAULT '',
  is_default bool NOT NULL DEFAULT false,
  settings jsonb NOT NULL DEFAULT '{}',
  inactivity_timeout_ms int8 NOT NULL DEFAULT 600000,
  version int4 NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX products_name ON products (tenant_id, name);
CREATE UNIQUE INDEX products_default ON products (tenant_id) WHERE is_default;
SELECT protect_tenant_table('products');
INSERT INTO products (tenant_id, id, name, is_default)
SELECT id, gen_random_uuid(), 'default', true FROM tenants;

-- `number` stands for the device in telemetry rows.
CREATE TABLE devices (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  number int4 NOT NULL GENERATED ALWAYS AS IDENTITY,
  customer_id uuid,
  product_id uuid NOT NULL,
  name text NOT NULL,
  label text,
  description text,
  tags text[] NOT NULL DEFAULT '{}',
  is_gateway bool NOT NULL DEFAULT false,
  is_demo bool NOT NULL DEFAULT false,
  time_zone text,
  inactivity_timeout_ms int8,
  additional_info jsonb NOT NULL DEFAULT '{}',
  disabled_at timestamptz,
  -- none: never seen, session: MQTT session open, closed: it ended, http: speaks without a session
  link text NOT NULL DEFAULT 'none' CHECK (link IN ('none', 'session', 'closed', 'http')),
  last_connect_at timestamptz,
  last_disconnect_at timestamptz,
  disconnect_reason text,
  last_activity_at timestamptz,
  version int4 NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  deleted_by text,
  -- Being deleted for good: no longer in the bin, gone when its telemetry is.
  purging_at timestamptz,
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, number),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers (tenant_id, id),
  FOREIGN KEY (tenant_id, product_id) REFERENCES products (tenant_id, id)
);
CREATE UNIQUE INDEX devices_name ON devices (tenant_id, name) WHERE deleted_at IS NULL;
CREATE INDEX devices_created ON devices (tenant_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX devices_activity ON devices (tenant_id, last_activity_at, id) WHERE deleted_at IS NULL;
CREATE INDEX devices_product ON devices (tenant_id, product_id) WHERE deleted_at IS NULL;
CREATE INDEX devices_tags ON devices USING gin (tags) WHERE deleted_at IS NULL;
CREATE INDEX devices_bin ON devices (tenant_id, deleted_at, id) WHERE deleted_at IS NOT NULL;
SELECT protect_customer_table('devices');

-- `lookup_sha256` is the SHA-256 of a token, or of client id and user name: random enough to be unique
-- over the installation without telling anybody what others chose.
CREATE TABLE device_credentials (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('access_token', 'mqtt_basic')),
  lookup_sha256 bytea NOT NULL,
  password_hmac bytea,
  sealed text NOT NULL,
  is_active bool NOT NULL DEFAULT true,
  expires_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, device_id, id),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX device_credentials_lookup ON device_credentials (lookup_sha256) WHERE is_active;
SELECT protect_tenant_table('device_credentials');

CREATE TABLE device_rejects (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  id uuid NOT NULL,
  code text NOT NULL,
  detail text NOT NULL,
  transport text NOT NULL,
  topic text NOT NULL,
  key text,
  ts int8,
  sample text NOT NULL,
  packet_id int4,
  client_id text,
  address text NOT NULL,
  count int4 NOT NULL,
  first_at timestamptz NOT NULL,
  last_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, device_id, id),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX device_rejects_last ON device_rejects (tenant_id, device_id, last_at);
SELECT protect_tenant_table('device_rejects');

CREATE TABLE device_log (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  id uuid NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  event text NOT NULL,
  detail jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (tenant_id, device_id, id),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('device_log');

-- Attributes keep typed values like telemetry: kind 0 double, 1 integer, 2 boolean, 3 string, 4 JSON.
CREATE TABLE device_attributes (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  scope text NOT NULL CHECK (scope IN ('client', 'shared', 'server')),
  key text NOT NULL,
  kind int2 NOT NULL,
  num float8,
  big int8,
  txt text,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, device_id, scope, key),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('device_attributes');

-- Messages, points and rejects per minute, for the overview.
CREATE TABLE ingest_minutes (
  tenant_id uuid NOT NULL REFERENCES tenants,
  minute timestamptz NOT NULL,
  messages int8 NOT NULL,
  points int8 NOT NULL,
  rejects int8 NOT NULL,
  PRIMARY KEY (tenant_id, minute)
);
SELECT protect_tenant_table('ingest_minutes');
