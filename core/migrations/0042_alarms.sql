-- SPDX-License-Identifier: AGPL-3.0-only
SET ROLE pms_owner;

-- Alarms of rules, of callers of the API, and of the system itself (without a device). Columns ending in _ts are ms since
-- 1970 on the clock of events. `origin` is what must not have two open alarms at one device: the rule's id, or the source and type.
CREATE TABLE alarms (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  customer_id uuid,
  device_id uuid,
  source text NOT NULL,
  origin text NOT NULL,
  rule_id uuid,
  rule_version int4,
  type text NOT NULL,
  instance text NOT NULL DEFAULT '',
  severity text NOT NULL CHECK (severity IN ('critical', 'major', 'minor', 'warning')),
  highest_severity text NOT NULL CHECK (highest_severity IN ('critical', 'major', 'minor', 'warning')),
  start_ts int8 NOT NULL,
  confirmed_ts int8 NOT NULL,
  end_ts int8,
  cleared_ts int8,
  clear_reason text,
  acked_at timestamptz,
  acked_by text,
  assignee_id uuid,
  title text NOT NULL,
  labels jsonb NOT NULL DEFAULT '{}',
  trigger jsonb NOT NULL DEFAULT '{}',
  episodes int4 NOT NULL DEFAULT 1,
  last_event_at timestamptz NOT NULL,
  -- 0 while it is active and nobody has acknowledged it: such alarms come first.
  rank int2 NOT NULL GENERATED ALWAYS AS ((CASE WHEN cleared_ts IS NULL THEN 0 ELSE 2 END) + (CASE WHEN acked_at IS NULL THEN 0 ELSE 1 END)) STORED,
  PRIMARY KEY (tenant_id, id),
  CHECK ((cleared_ts IS NULL) = (clear_reason IS NULL)),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers (tenant_id, id),
  FOREIGN KEY (tenant_id, assignee_id) REFERENCES users (tenant_id, id) ON DELETE SET NULL (assignee_id)
);
CREATE UNIQUE INDEX alarms_open ON alarms (tenant_id, origin, device_id, instance) NULLS NOT DISTINCT WHERE cleared_ts IS NULL;
-- Points that are judged again after a restart make no second row.
CREATE UNIQUE INDEX alarms_once ON alarms (tenant_id, rule_id, device_id, instance, start_ts) WHERE rule_id IS NOT NULL;
CREATE INDEX alarms_desk ON alarms (tenant_id, rank, start_ts DESC, id DESC);
CREATE INDEX alarms_start ON alarms (tenant_id, start_ts DESC, id DESC);
CREATE INDEX alarms_device ON alarms (tenant_id, device_id, start_ts DESC);
CREATE INDEX alarms_assignee ON alarms (tenant_id, assignee_id) WHERE assignee_id IS NOT NULL;
SELECT protect_customer_table('alarms');

-- Who did what to an alarm, and when. The customer is the alarm's, so that its users see the timeline and nobody else's.
CREATE TABLE alarm_events (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  alarm_id uuid NOT NULL,
  customer_id uuid,
  at timestamptz NOT NULL,
  actor text,
  actor_id uuid,
  kind text NOT NULL,
  data jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, alarm_id) REFERENCES alarms (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX alarm_events_alarm ON alarm_events (tenant_id, alarm_id, id);
SELECT protect_customer_table('alarm_events');

-- Rules. `document` is what people write; `state` says whether it runs, or why it rests. In the bin while deleted_at is set.
CREATE TABLE rules (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('alarm', 'calculated')),
  name text NOT NULL,
  mode text NOT NULL CHECK (mode IN ('on', 'dryRun', 'off')),
  document jsonb NOT NULL,
  version int4 NOT NULL DEFAULT 1,
  failure text,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  updated_by text NOT NULL,
  deleted_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX rules_name ON rules (tenant_id, name) WHERE deleted_at IS NULL;
SELECT protect_tenant_table('rules');

-- Every version of a rule, the present one too.
CREATE TABLE rule_versions (
  tenant_id uuid NOT NULL,
  rule_id uuid NOT NULL,
  version int4 NOT NULL,
  document jsonb NOT NULL,
  author text NOT NULL,
  note text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, rule_id, version),
  FOREIGN KEY (tenant_id, rule_id) REFERENCES rules (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('rule_versions');

-- What is to be remembered of a rule at a device, while there is something: `version` is that of the rule it belongs to,
-- `at` the last instant that was judged, `active_since` when the rule began there; ms since 1970.
CREATE TABLE rule_states (
  tenant_id uuid NOT NULL,
  rule_id uuid NOT NULL,
  device_id uuid NOT NULL,
  version int4 NOT NULL,
  state jsonb NOT NULL,
  at int8 NOT NULL,
  active_since int8 NOT NULL,
  PRIMARY KEY (tenant_id, rule_id, device_id),
  FOREIGN KEY (tenant_id, rule_id) REFERENCES rules (tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 70);
SELECT protect_tenant_table('rule_states');

-- What rules knew of a device when a state of it was stored last: key → [ts, value, value before, receipt]. After a start
-- what was sent since then is judged again, and nothing before it.
CREATE TABLE rule_values (
  tenant_id uuid NOT NULL,
  device_id uuid NOT NULL,
  slots jsonb NOT NULL,
  PRIMARY KEY (tenant_id, device_id),
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 70);
SELECT protect_tenant_table('rule_values');

-- What a rule on trial would have told.
CREATE TABLE rule_dry_runs (
  tenant_id uuid NOT NULL,
  rule_id uuid NOT NULL,
  id uuid NOT NULL,
  device_id uuid NOT NULL,
  kind text NOT NULL,
  data jsonb NOT NULL DEFAULT '{}',
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, rule_id, id),
  FOREIGN KEY (tenant_id, rule_id) REFERENCES rules (tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('rule_dry_runs');

-- Up to where in the segments of telemetry everything was judged, and what came of it is committed. From there on
-- segments are not merged, so that they can be read again in the order of their commits.
CREATE TABLE rule_checkpoints (
  name text PRIMARY KEY,
  segment_no int4 NOT NULL,
  seq int4 NOT NULL,
  at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON rule_checkpoints TO pms_jobs;
GRANT SELECT ON rule_checkpoints TO pms_store;

-- What actions of rules did. `key` is the event and the place of the action: what is repeated is done once.
CREATE TABLE rule_runs (
  tenant_id uuid NOT NULL,
  key text NOT NULL,
  id uuid NOT NULL,
  rule_id uuid,
  alarm_id uuid NOT NULL,
  device_id uuid,
  type text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('done', 'failed', 'suppressed')),
  detail text,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, key),
  FOREIGN KEY (tenant_id, alarm_id) REFERENCES alarms (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX rule_runs_rule ON rule_runs (tenant_id, rule_id, id);
CREATE INDEX rule_runs_pair ON rule_runs (tenant_id, rule_id, device_id, at);
SELECT protect_tenant_table('rule_runs');
