-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- Addresses of people beside that of their account; used only when verified.
CREATE TABLE notify_contact_points (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  user_id uuid NOT NULL,
  type text NOT NULL CHECK (type IN ('email', 'sms', 'telegram')),
  address text NOT NULL,
  verified_at timestamptz,
  -- HMAC of the code that was sent.
  code_hash text,
  code_expires_at timestamptz,
  code_tries int4 NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, user_id, type, address),
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('notify_contact_points');

-- Zone, least severity, topics by channel type, quiet hours, order: one document per person.
CREATE TABLE notify_preferences (
  tenant_id uuid NOT NULL REFERENCES tenants,
  user_id uuid NOT NULL,
  document jsonb NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, user_id),
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('notify_preferences');

CREATE TABLE notify_escalations (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  name text NOT NULL,
  steps jsonb NOT NULL,
  repeat int4 NOT NULL DEFAULT 0,
  version int4 NOT NULL DEFAULT 1,
  updated_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, name)
);
SELECT protect_tenant_table('notify_escalations');

-- What a link in a message acknowledges, and for whom. Of the token only its hash is kept.
CREATE TABLE notify_ack_tokens (
  tenant_id uuid NOT NULL REFERENCES tenants,
  token_sha256 bytea NOT NULL,
  delivery_id uuid NOT NULL,
  group_id text NOT NULL,
  recipient text NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, token_sha256),
  FOREIGN KEY (tenant_id, delivery_id) REFERENCES notify_deliveries (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('notify_ack_tokens');

-- What came after a delivery was sent: receipts, reading, acknowledging.
CREATE TABLE notify_events (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  delivery_id uuid NOT NULL,
  kind text NOT NULL,
  detail text,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, delivery_id) REFERENCES notify_deliveries (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('notify_events');
CREATE INDEX notify_events_delivery ON notify_events (tenant_id, delivery_id);

-- Addresses that a provider said are dead, or whose owner wants nothing more.
CREATE TABLE notify_suppressions (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  type text NOT NULL,
  address text NOT NULL,
  reason text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, type, address)
);
SELECT protect_tenant_table('notify_suppressions');

-- Whom a message by the simple address of an API key goes to.
CREATE TABLE notify_send_keys (
  tenant_id uuid NOT NULL REFERENCES tenants,
  api_key_id uuid NOT NULL,
  receiver text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, api_key_id),
  FOREIGN KEY (tenant_id, api_key_id) REFERENCES api_keys (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('notify_send_keys');

-- Until when quiet hours, or too many messages in an hour, hold it back.
ALTER TABLE notify_deliveries ADD COLUMN IF NOT EXISTS held_until timestamptz;
CREATE INDEX IF NOT EXISTS notify_deliveries_held ON notify_deliveries (tenant_id, user_id, held_until) WHERE held_until IS NOT NULL;
ALTER TABLE notify_alerts ADD COLUMN IF NOT EXISTS acked_at timestamptz;
ALTER TABLE notify_alerts ADD COLUMN IF NOT EXISTS acked_by text;
ALTER TABLE notify_messages ADD COLUMN IF NOT EXISTS template text;
