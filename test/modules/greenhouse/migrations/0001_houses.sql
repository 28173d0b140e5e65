-- SPDX-License-Identifier: AGPL-3.0-only
CREATE TABLE greenhouse.houses (
  tenant_id uuid NOT NULL REFERENCES public.tenants ON DELETE CASCADE,
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  name text NOT NULL,
  device_id uuid,
  warmest float8,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  -- A device that core deletes leaves its house behind.
  FOREIGN KEY (tenant_id, device_id) REFERENCES public.devices (tenant_id, id) ON DELETE SET NULL (device_id),
  UNIQUE (tenant_id, name)
);
SELECT protect_tenant_table('greenhouse.houses');
