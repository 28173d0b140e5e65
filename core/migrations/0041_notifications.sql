-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

CREATE TABLE notify_channels (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  name text NOT NULL,
  type text NOT NULL,
  -- What is no secret; the secrets are sealed together as one JSON object.
  config jsonb NOT NULL DEFAULT '{}',
  sealed_secrets text,
  -- Per secret its last four characters.
  secret_tails jsonb NOT NULL DEFAULT '{}',
  rate jsonb,
  digest bool,
  enabled bool NOT NULL DEFAULT true,
  state text NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'failing', 'disabled')),
  reason text,
  state_since timestamptz NOT NULL DEFAULT now(),
  -- Failures in a row since then, and until when the channel rests.
  failures int4 NOT NULL DEFAULT 0,
  failing_since timestamptz,
  paused_until timestamptz,
  pause_ms int4 NOT NULL DEFAULT 0,
  last_sent_at timestamptz,
  last_error text,
  callback_token text NOT NULL,
  version int4 NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, name)
);
SELECT protect_tenant_table('notify_channels');

-- Routes, receivers, inhibition and intervals as one document.
CREATE TABLE notify_routing (
  tenant_id uuid PRIMARY KEY REFERENCES tenants,
  document jsonb NOT NULL,
  version int4 NOT NULL DEFAULT 1,
  updated_by text NOT NULL DEFAULT 'system',
  updated_at timestamptz NOT NULL DEFAULT now()
);
SELECT protect_tenant_table('notify_routing');

CREATE TABLE notify_silences (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  matchers jsonb NOT NULL,
  starts_at timestamptz NOT NULL,
  ends_at timestamptz NOT NULL,
  comment text NOT NULL,
  author_id uuid NOT NULL,
  author text NOT NULL,
  history jsonb NOT NULL DEFAULT '[]',
  version int4 NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
SELECT protect_tenant_table('notify_silences');
CREATE INDEX notify_silences_open ON notify_silences (tenant_id, ends_at);

-- Groups of alerts: what belongs to them and what was last told.
CREATE TABLE notify_groups (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id text NOT NULL,
  state jsonb NOT NULL,
  next_tick_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
SELECT protect_tenant_table('notify_groups');
CREATE INDEX notify_groups_due ON notify_groups (tenant_id, next_tick_at) WHERE next_tick_at IS NOT NULL;

-- Alerts that fire or have just ended, for inhibition and for groups.
CREATE TABLE notify_alerts (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id text NOT NULL,
  status text NOT NULL CHECK (status IN ('firing', 'resolved')),
  labels jsonb NOT NULL,
  data jsonb NOT NULL DEFAULT '{}',
  starts_at timestamptz NOT NULL,
  ends_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
SELECT protect_tenant_table('notify_alerts');

CREATE TABLE notify_messages (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  source text NOT NULL CHECK (source IN ('api', 'alert', 'system', 'digest')),
  topic text NOT NULL,
  event text NOT NULL,
  priority int2 NOT NULL,
  title text NOT NULL,
  text text NOT NULL,
  format text NOT NULL,
  resolved bool NOT NULL DEFAULT false,
  links jsonb NOT NULL DEFAULT '[]',
  data jsonb NOT NULL DEFAULT '{}',
  -- Steps of targets; the next one begins when one ended without success.
  plan jsonb NOT NULL DEFAULT '[]',
  fallback_after_ms int8 NOT NULL,
  step int4 NOT NULL DEFAULT 0,
  dedup_key text,
  group_key text,
  scheduled_at timestamptz,
  expires_at timestamptz NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
SELECT protect_tenant_table('notify_messages');
CREATE INDEX notify_messages_recent ON notify_messages (tenant_id, created_at);
CREATE INDEX notify_messages_dedup ON notify_messages (tenant_id, dedup_key, created_at) WHERE dedup_key IS NOT NULL;

CREATE TABLE notify_deliveries (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  message_id uuid NOT NULL,
  step int4 NOT NULL DEFAULT 0,
  channel_id uuid NOT NULL,
  type text NOT NULL,
  user_id uuid,
  address text,
  priority int2 NOT NULL,
  state text NOT NULL CHECK (state IN ('accepted', 'queued', 'sending', 'sent', 'delivered', 'read', 'acked', 'failed', 'expired', 'suppressed', 'canceled')),
  reason text,
  -- Waits for a free slot of its channel.
  is_waiting bool NOT NULL DEFAULT false,
  attempts int4 NOT NULL DEFAULT 0,
  unknowns int4 NOT NULL DEFAULT 0,
  provider_message_id text,
  provider_code text,
  next_at timestamptz,
  expires_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, message_id) REFERENCES notify_messages (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('notify_deliveries');
CREATE INDEX notify_deliveries_message ON notify_deliveries (tenant_id, message_id);
CREATE INDEX notify_deliveries_recent ON notify_deliveries (tenant_id, created_at);
CREATE INDEX notify_deliveries_waiting ON notify_deliveries (tenant_id, channel_id, priority, created_at) WHERE is_waiting;
CREATE INDEX notify_deliveries_provider ON notify_deliveries (tenant_id, channel_id, provider_message_id) WHERE provider_message_id IS NOT NULL;

CREATE TABLE notify_attempts (
  tenant_id uuid NOT NULL REFERENCES tenants,
  delivery_id uuid NOT NULL,
  no int4 NOT NULL,
  at timestamptz NOT NULL,
  outcome text NOT NULL,
  reason text,
  http_status int4,
  provider_code text,
  provider_message text,
  latency_ms int4 NOT NULL,
  retry_after_ms int8,
  PRIMARY KEY (tenant_id, delivery_id, no),
  FOREIGN KEY (tenant_id, delivery_id) REFERENCES notify_deliveries (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('notify_attempts');

-- The in-app inbox.
CREATE TABLE notify_inbox (
  tenant_id uuid NOT NULL REFERENCES tenants,
  user_id uuid NOT NULL,
  id uuid NOT NULL,
  title text NOT NULL,
  text text NOT NULL,
  priority int2 NOT NULL,
  links jsonb NOT NULL DEFAULT '[]',
  created_at timestamptz NOT NULL DEFAULT now(),
  read_at timestamptz,
  PRIMARY KEY (tenant_id, user_id, id)
);
SELECT protect_tenant_table('notify_inbox');
CREATE INDEX notify_inbox_recent ON notify_inbox (tenant_id, user_id, created_at);

-- Texts by language. What a template was before is in its versions.
CREATE TABLE notify_templates (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  name text NOT NULL,
  topic text NOT NULL DEFAULT 'message',
  locales jsonb NOT NULL,
  example jsonb NOT NULL DEFAULT '{}',
  version int4 NOT NULL DEFAULT 1,
  updated_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, name)
);
SELECT protect_tenant_table('notify_templates');

CREATE TABLE notify_template_versions (
  tenant_id uuid NOT NULL REFERENCES tenants,
  template_id uuid NOT NULL,
  version int4 NOT NULL,
  locales jsonb NOT NULL,
  example jsonb NOT NULL,
  updated_by text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, template_id, version),
  FOREIGN KEY (tenant_id, template_id) REFERENCES notify_templates (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('notify_template_versions');
