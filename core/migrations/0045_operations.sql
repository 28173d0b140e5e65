-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- Long requests of people: how far they are, and what failed.
CREATE TABLE operations (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  kind text NOT NULL,
  state text NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'canceled')),
  input jsonb NOT NULL,
  -- Where the next step goes on.
  cursor jsonb,
  done int4 NOT NULL DEFAULT 0,
  total int4,
  result jsonb,
  failures jsonb NOT NULL DEFAULT '[]',
  failure_count int4 NOT NULL DEFAULT 0,
  cancels bool NOT NULL DEFAULT false,
  created_by_id uuid NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  finished_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
SELECT protect_tenant_table('operations');
CREATE INDEX operations_recent ON operations (tenant_id, created_at);
