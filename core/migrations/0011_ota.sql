-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- A firmware or software of a product: a file in parts, or the address of one elsewhere. `content_id` names the
-- parts that are the content, `upload_id` those that are just being written.
CREATE TABLE ota_packages (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  product_id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('firmware', 'software')),
  title text NOT NULL,
  version text NOT NULL,
  tag text,
  url text,
  checksum_algorithm text NOT NULL,
  checksum text,
  size_bytes int8,
  file_name text,
  content_type text,
  content_id uuid,
  upload_id uuid,
  upload_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  -- A product nobody uses goes with its packages.
  FOREIGN KEY (tenant_id, product_id) REFERENCES products (tenant_id, id) ON DELETE CASCADE,
  UNIQUE (tenant_id, product_id, kind, title, version),
  CHECK (url IS NULL OR content_id IS NULL)
);
SELECT protect_tenant_table('ota_packages');

-- Parts of 256 KiB, the last one shorter.
CREATE TABLE ota_parts (
  tenant_id uuid NOT NULL,
  package_id uuid NOT NULL,
  content_id uuid NOT NULL,
  no int4 NOT NULL,
  bytes bytea NOT NULL,
  PRIMARY KEY (tenant_id, content_id, no),
  FOREIGN KEY (tenant_id, package_id) REFERENCES ota_packages (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX ota_parts_package ON ota_parts (tenant_id, package_id, content_id);
-- Firmware is compressed or encrypted already: trying again would only cost time.
ALTER TABLE ota_parts ALTER COLUMN bytes SET STORAGE EXTERNAL;
SELECT protect_tenant_table('ota_parts');

-- `own_package_id`: given to the device itself, beats that of its product. `package_id`: what it was told to
-- install, with how far it is; it may be gone already while the device has not been told so yet.
CREATE TABLE ota_devices (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('firmware', 'software')),
  own_package_id uuid,
  package_id uuid,
  -- NULL until everything of the offer is written.
  offered_at timestamptz,
  state text NOT NULL DEFAULT 'QUEUED',
  state_at timestamptz NOT NULL DEFAULT now(),
  error text,
  bytes_sent int8 NOT NULL DEFAULT 0,
  current_title text,
  current_version text,
  PRIMARY KEY (tenant_id, device_id, kind),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, own_package_id) REFERENCES ota_packages (tenant_id, id)
);
CREATE INDEX ota_devices_own ON ota_devices (tenant_id, own_package_id) WHERE own_package_id IS NOT NULL;
CREATE INDEX ota_devices_package ON ota_devices (tenant_id, package_id, state) WHERE package_id IS NOT NULL;
SELECT protect_tenant_table('ota_devices');

CREATE TABLE ota_events (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL,
  at timestamptz NOT NULL,
  package_id uuid,
  event text NOT NULL,
  detail jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (tenant_id, device_id, id),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('ota_events');
