-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- SHA-256 of provisioning key and secret together: random enough to be unique over the installation
-- without telling anybody what others chose. NULL while provisioning is off.
ALTER TABLE products ADD COLUMN provisioning_sha256 bytea;
CREATE UNIQUE INDEX products_provisioning ON products (provisioning_sha256) WHERE provisioning_sha256 IS NOT NULL;

-- Rate limits of devices whose product sets none.
ALTER TABLE installation ADD COLUMN device_limits jsonb NOT NULL DEFAULT '{}';

-- The number in the topic of a command counts up per device and is never given back.
CREATE TABLE command_counters (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  last_no int4 NOT NULL,
  PRIMARY KEY (tenant_id, device_id),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('command_counters');

-- Persistent commands. `params` and `response` are JSON as text, so that nothing of them is changed.
CREATE TABLE commands (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  device_id uuid NOT NULL,
  no int4 NOT NULL,
  method text NOT NULL,
  params text NOT NULL,
  oneway bool NOT NULL,
  state text NOT NULL CHECK (state IN ('QUEUED', 'SENT', 'DELIVERED', 'SUCCESSFUL', 'TIMEOUT', 'EXPIRED', 'FAILED', 'DELETED')),
  retries int4 NOT NULL,
  -- Acknowledgements that did not come in time.
  attempts int4 NOT NULL DEFAULT 0,
  response text,
  additional_info text,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX commands_device ON commands (tenant_id, device_id, id);
-- What still waits for something: a two-way command that was delivered waits for its answer.
CREATE INDEX commands_open ON commands (tenant_id, device_id, no)
  WHERE state IN ('QUEUED', 'SENT', 'TIMEOUT') OR (state = 'DELIVERED' AND NOT oneway);
CREATE INDEX commands_expiry ON commands (tenant_id, expires_at)
  WHERE state IN ('QUEUED', 'SENT', 'TIMEOUT') OR (state = 'DELIVERED' AND NOT oneway);
SELECT protect_tenant_table('commands');

-- Every state a command was in, with its time.
CREATE TABLE command_moves (
  tenant_id uuid NOT NULL,
  command_id uuid NOT NULL,
  no int4 NOT NULL,
  at timestamptz NOT NULL,
  state text NOT NULL,
  detail text,
  PRIMARY KEY (tenant_id, command_id, no),
  FOREIGN KEY (tenant_id, command_id) REFERENCES commands (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('command_moves');
