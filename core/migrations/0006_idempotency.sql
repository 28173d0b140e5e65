-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- Answers to creating requests by the key their caller chose, so that a repeat creates nothing twice.
-- The answer may hold a fresh secret, so it is kept sealed; NULL while the first request still runs.
CREATE TABLE idempotency_keys (
  tenant_id uuid NOT NULL,
  user_id uuid NOT NULL,
  key text NOT NULL,
  request_sha256 bytea NOT NULL,
  status int4,
  sealed_body text,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, user_id, key),
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (tenant_id, created_at);
SELECT protect_tenant_table('idempotency_keys');
