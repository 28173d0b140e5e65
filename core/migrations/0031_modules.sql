-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- Which migrations of modules have run. Their tables live in a schema of each module's own name.
CREATE TABLE module_migrations (
  module text NOT NULL,
  version int4 NOT NULL,
  name text NOT NULL,
  checksum text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (module, version)
);
