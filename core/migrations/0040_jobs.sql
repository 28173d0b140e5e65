-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- The queues themselves are the schema "jobs", installed by the migration run after these files: jobs/schema.ts.

-- What recurs. Rows with an owner were made by people, the others by code.
CREATE TABLE schedules (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  name text NOT NULL,
  queue text NOT NULL,
  cron text NOT NULL,
  zone text NOT NULL,
  data jsonb NOT NULL DEFAULT '{}',
  missed text NOT NULL DEFAULT 'once' CHECK (missed IN ('once', 'skip')),
  overlap text NOT NULL DEFAULT 'skip' CHECK (overlap IN ('allow', 'skip')),
  jitter_ms int4 NOT NULL DEFAULT 0,
  owner_id uuid,
  enabled bool NOT NULL DEFAULT true,
  next_at timestamptz,
  last_at timestamptz,
  last_job_id uuid,
  last_outcome text,
  version int4 NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, name)
);
SELECT protect_tenant_table('schedules');
CREATE INDEX schedules_due ON schedules (tenant_id, next_at) WHERE enabled AND next_at IS NOT NULL;

-- Shared windows of the limiter: when the last takes of a key were.
CREATE TABLE job_rates (
  tenant_id uuid NOT NULL REFERENCES tenants,
  key text NOT NULL,
  hits timestamptz[] NOT NULL DEFAULT '{}',
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key)
);
SELECT protect_tenant_table('job_rates');

CREATE TABLE state_documents (
  tenant_id uuid NOT NULL REFERENCES tenants,
  scope text NOT NULL,
  key text NOT NULL,
  value jsonb NOT NULL,
  version int8 NOT NULL DEFAULT 1,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, scope, key)
);
SELECT protect_tenant_table('state_documents');

CREATE TABLE machines (
  tenant_id uuid NOT NULL REFERENCES tenants,
  machine text NOT NULL,
  key text NOT NULL,
  state text NOT NULL,
  version int4 NOT NULL,
  data jsonb NOT NULL DEFAULT '{}',
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, machine, key)
);
SELECT protect_tenant_table('machines');

CREATE TABLE machine_events (
  tenant_id uuid NOT NULL REFERENCES tenants,
  machine text NOT NULL,
  key text NOT NULL,
  id uuid NOT NULL,
  version int4 NOT NULL,
  event text NOT NULL,
  from_state text NOT NULL,
  to_state text NOT NULL,
  actor text NOT NULL,
  idempotency_key text,
  outcome text NOT NULL CHECK (outcome IN ('applied', 'rejected')),
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, machine, key, id)
);
SELECT protect_tenant_table('machine_events');
CREATE UNIQUE INDEX machine_events_once ON machine_events (tenant_id, machine, key, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX machine_events_old ON machine_events (tenant_id, at);

-- Payloads that keep failing for good [jobs 7.4]; the hash leaves out ids.
CREATE TABLE job_poison (
  tenant_id uuid NOT NULL REFERENCES tenants,
  queue text NOT NULL,
  payload_sha256 bytea NOT NULL,
  failures int4 NOT NULL DEFAULT 1,
  first_at timestamptz NOT NULL DEFAULT now(),
  last_at timestamptz NOT NULL DEFAULT now(),
  quarantined_at timestamptz,
  PRIMARY KEY (tenant_id, queue, payload_sha256)
);
SELECT protect_tenant_table('job_poison');
