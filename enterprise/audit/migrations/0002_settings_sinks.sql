-- SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial

CREATE TABLE audit.settings (
  tenant_id uuid PRIMARY KEY REFERENCES public.tenants ON DELETE CASCADE,
  -- 0 is for ever.
  audit_days int4 NOT NULL DEFAULT 1095 CHECK (audit_days = 0 OR audit_days >= 180),
  -- A shorter time counts from pending_at on, and can be taken back until then.
  pending_days int4 CHECK (pending_days >= 180),
  pending_at timestamptz,
  -- Names of members that are masked beside the usual ones.
  mask_names jsonb NOT NULL DEFAULT '[]',
  -- Sealed; what masked values are compared by.
  mask_key text NOT NULL,
  CHECK ((pending_days IS NULL) = (pending_at IS NULL))
);
SELECT protect_tenant_table('audit.settings');

-- Where events go. Address, headers and secrets lie sealed together.
CREATE TABLE audit.sinks (
  tenant_id uuid NOT NULL REFERENCES public.tenants ON DELETE CASCADE,
  id uuid NOT NULL,
  name text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('file', 'syslog', 'http')),
  enabled boolean NOT NULL DEFAULT true,
  -- Chains it gets: that of the tenant, that of the platform, both.
  chains text NOT NULL CHECK (chains IN ('own', 'platform', 'both')),
  sealed text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, name)
);
SELECT protect_tenant_table('audit.sinks');
