-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- How long points are kept. Without product and key pattern: the rule of the whole tenant. The most specific
-- one counts: product and pattern, then pattern, then product, then tenant. keep_days NULL: for ever.
-- Patterns are globs: * for any characters, ? for one.
CREATE TABLE retention_rules (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  product_id uuid,
  key_pattern text CHECK (key_pattern <> ''),
  keep_days int4 CHECK (keep_days >= 1),
  version int4 NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, product_id) REFERENCES products (tenant_id, id) ON DELETE CASCADE,
  UNIQUE NULLS NOT DISTINCT (tenant_id, product_id, key_pattern)
);
SELECT protect_tenant_table('retention_rules');
