-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- Brokers of others that data is taken from. The device stands for the connector: it is the gateway of the devices it brings.
CREATE TABLE connectors (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  name text NOT NULL,
  is_enabled bool NOT NULL DEFAULT false,
  settings jsonb NOT NULL DEFAULT '{}',
  sealed_password text,
  device_id uuid,
  version int4 NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE SET NULL (device_id)
);
CREATE UNIQUE INDEX connectors_name ON connectors (tenant_id, name);
CREATE INDEX connectors_device ON connectors (tenant_id, device_id) WHERE device_id IS NOT NULL;
SELECT protect_tenant_table('connectors');
