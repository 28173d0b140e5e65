-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- Keys that statements about stored records are signed with. The newest one signs; public keys stay for ever.
CREATE TABLE evidence_keys (
  tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
  id text NOT NULL,
  -- Raw Ed25519 public key.
  public_key bytea NOT NULL CHECK (length(public_key) = 32),
  -- PKCS #8, sealed with the installation's secret key.
  sealed text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
SELECT protect_tenant_table('evidence_keys');
REVOKE UPDATE, DELETE ON evidence_keys FROM pms_app;
