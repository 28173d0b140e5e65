-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- When a device got its credentials by provisioning; one that was registered before does so once.
ALTER TABLE devices ADD COLUMN provisioned_at timestamptz;

-- The look-up of a certificate is the SHA-256 of its DER, which is public: nothing about it is secret.
ALTER TABLE device_credentials DROP CONSTRAINT device_credentials_kind_check;
ALTER TABLE device_credentials ADD CONSTRAINT device_credentials_kind_check CHECK (kind IN ('access_token', 'mqtt_basic', 'x509'));

-- What a device says so that a customer may claim it; a newer message replaces the older.
CREATE TABLE device_claims (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  secret_hmac bytea NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  -- Wrong secrets since `failing_since`.
  failures int4 NOT NULL DEFAULT 0,
  failing_since timestamptz,
  PRIMARY KEY (tenant_id, device_id),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX device_claims_expiry ON device_claims (tenant_id, expires_at);
SELECT protect_tenant_table('device_claims');
