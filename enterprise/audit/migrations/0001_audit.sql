-- SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial

-- All events of one tenant in order, and one chain of the platform. The row is what writers of a chain queue at.
CREATE TABLE audit.chains (
  tenant_id uuid NOT NULL REFERENCES public.tenants ON DELETE CASCADE,
  stream text NOT NULL,
  head_seq int8 NOT NULL DEFAULT 0,
  head_hash bytea NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000',
  -- Right edge of the tree over all events: [{"size": n, "hash": hex}], left to right.
  tree jsonb NOT NULL DEFAULT '[]',
  -- What retention has left: number of the oldest event, the hash before it, the subtrees before it.
  first_seq int8 NOT NULL DEFAULT 1,
  first_prev bytea NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000',
  first_left jsonb NOT NULL DEFAULT '[]',
  PRIMARY KEY (tenant_id, stream),
  CHECK (length(head_hash) = 32 AND length(first_prev) = 32 AND first_seq <= head_seq + 1)
);
SELECT protect_tenant_table('audit.chains');
REVOKE DELETE ON audit.chains FROM pms_app;

CREATE TABLE audit.events (
  tenant_id uuid NOT NULL REFERENCES public.tenants ON DELETE CASCADE,
  stream text NOT NULL,
  seq int8 NOT NULL CHECK (seq > 0),
  ts timestamptz NOT NULL,
  type text NOT NULL,
  actor text NOT NULL,
  subject text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('success', 'failure', 'denied')),
  -- The canonical text that was hashed: jsonb would write its numbers in another way.
  payload text NOT NULL,
  hash bytea NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (tenant_id, stream, seq)
);
CREATE INDEX events_actor ON audit.events (tenant_id, stream, actor, seq);
CREATE INDEX events_subject ON audit.events (tenant_id, stream, subject, seq);
CREATE INDEX events_type ON audit.events (tenant_id, stream, type text_pattern_ops, seq);
CREATE INDEX events_ts ON audit.events (tenant_id, stream, ts, seq);
SELECT protect_tenant_table('audit.events');
REVOKE UPDATE, DELETE ON audit.events FROM pms_app;

CREATE TABLE audit.checkpoints (
  tenant_id uuid NOT NULL REFERENCES public.tenants ON DELETE CASCADE,
  stream text NOT NULL,
  size int8 NOT NULL,
  -- Canonical text of the body, as it was signed.
  body text NOT NULL,
  signature text NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, stream, size)
);
SELECT protect_tenant_table('audit.checkpoints');
REVOKE UPDATE, DELETE ON audit.checkpoints FROM pms_app;

-- A segment of 4,096 events that retention has taken away, as what can be proved about it.
CREATE TABLE audit.tombstones (
  tenant_id uuid NOT NULL REFERENCES public.tenants ON DELETE CASCADE,
  stream text NOT NULL,
  segment int8 NOT NULL,
  first_seq int8 NOT NULL,
  last_seq int8 NOT NULL,
  first_ts timestamptz NOT NULL,
  last_ts timestamptz NOT NULL,
  root bytea NOT NULL,
  last_hash bytea NOT NULL,
  rows int8 NOT NULL,
  policy text NOT NULL,
  checkpoint_size int8 NOT NULL,
  deleted_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, stream, segment),
  CHECK (first_seq = (segment - 1) * 4096 + 1 AND last_seq = segment * 4096 AND rows = 4096 AND checkpoint_size >= last_seq)
);
SELECT protect_tenant_table('audit.tombstones');
REVOKE UPDATE, DELETE ON audit.tombstones FROM pms_app;

-- How far a sink has got: delivery goes on from here, whatever stopped it.
CREATE TABLE audit.sink_state (
  tenant_id uuid NOT NULL REFERENCES public.tenants ON DELETE CASCADE,
  stream text NOT NULL,
  sink text NOT NULL,
  seq int8 NOT NULL DEFAULT 0,
  checkpoint_size int8 NOT NULL DEFAULT 0,
  failing_since timestamptz,
  PRIMARY KEY (tenant_id, stream, sink)
);
SELECT protect_tenant_table('audit.sink_state');

-- [AU-31] Not even the owner changes an event; whole segments go only by the function below, and all with their tenant.
CREATE FUNCTION audit.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF TG_OP = 'DELETE' AND current_user = 'pms_owner' THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'audit events are not changed' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON audit.events FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON audit.events FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON audit.checkpoints FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON audit.checkpoints FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();

-- [AU-50] Deletes the oldest segment of a chain of the transaction's tenant: whole, closed, covered by a checkpoint,
-- written down as a tombstone, and never the newest. Returns the number of events.
CREATE FUNCTION audit.delete_segment(wanted_stream text, wanted_segment int8) RETURNS int8
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  tenant uuid := nullif(current_setting('iot_pms.tenant_id', true), '')::uuid;
  grave audit.tombstones;
  deleted int8;
BEGIN
  SELECT t.* INTO grave FROM audit.tombstones t
    JOIN audit.chains c ON c.tenant_id = t.tenant_id AND c.stream = t.stream
    JOIN audit.checkpoints p ON p.tenant_id = t.tenant_id AND p.stream = t.stream AND p.size = t.checkpoint_size
    WHERE t.tenant_id = tenant AND t.stream = wanted_stream AND t.segment = wanted_segment
      AND c.first_seq = t.last_seq + 1 AND c.head_seq > t.last_seq
      AND EXISTS (SELECT FROM audit.events e WHERE e.tenant_id = tenant AND e.stream = t.stream AND e.seq = t.last_seq AND e.hash = t.last_hash);
  IF NOT FOUND THEN
    RAISE EXCEPTION 'segment % of % cannot be deleted', wanted_segment, wanted_stream USING ERRCODE = 'insufficient_privilege';
  END IF;
  DELETE FROM audit.events e
    WHERE e.tenant_id = tenant AND e.stream = wanted_stream AND e.seq BETWEEN grave.first_seq AND grave.last_seq;
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END
$$;
REVOKE ALL ON FUNCTION audit.delete_segment(text, int8) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.delete_segment(text, int8) TO pms_app;
