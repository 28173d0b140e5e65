-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- The gateway that speaks for the device, and when the device last spoke for itself: one that does is not a gateway's to take.
ALTER TABLE devices ADD COLUMN gateway_id uuid;
ALTER TABLE devices ADD COLUMN own_connect_at timestamptz;
ALTER TABLE devices ADD CONSTRAINT devices_gateway_fkey FOREIGN KEY (tenant_id, gateway_id) REFERENCES devices (tenant_id, id)
  ON DELETE SET NULL (gateway_id);
CREATE INDEX devices_gateway ON devices (tenant_id, gateway_id, id) WHERE gateway_id IS NOT NULL;
UPDATE devices SET own_connect_at = CASE link WHEN 'http' THEN last_activity_at ELSE last_connect_at END WHERE link <> 'none';
