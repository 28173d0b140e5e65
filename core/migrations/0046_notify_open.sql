-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- What has not ended is little beside what has: counted every few seconds.
CREATE INDEX IF NOT EXISTS notify_deliveries_open ON notify_deliveries (tenant_id, state, created_at) WHERE state IN ('accepted', 'queued', 'sending');
