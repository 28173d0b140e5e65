// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { findForeignTarget } from './sql-targets.ts'

describe('the migration of a module', () => {
  it.each([
    'CREATE TABLE barn.cows (id int); -- a comment; with a semicolon',
    'CREATE TABLE cows (id int)',
    'CREATE UNIQUE INDEX IF NOT EXISTS cows_name ON barn.cows (name)',
    'CREATE INDEX ON barn.cows (name)',
    'ALTER TABLE IF EXISTS ONLY barn.cows ADD COLUMN x int',
    'DROP TABLE IF EXISTS "barn"."cows"',
    "CREATE FUNCTION barn.f() RETURNS text LANGUAGE sql AS $$ SELECT 'DROP TABLE public.users; x' $$",
    'CREATE POLICY p ON barn.cows USING (true)',
    "COMMENT ON TABLE barn.cows IS 'public.users'",
    "INSERT INTO barn.cows VALUES (1, 'a;b')",
    "SELECT protect_tenant_table('barn.cows')",
    'GRANT SELECT ON barn.cows TO pms_jobs',
    'CREATE TABLE barn.calves (tenant_id uuid REFERENCES public.tenants ON DELETE CASCADE, cow int REFERENCES cows)',
    'CREATE TABLE barn.bells (d uuid, FOREIGN KEY (t, d) REFERENCES public.devices (tenant_id, id) ON DELETE SET NULL (d))',
    '/* nothing */ ;;',
  ])('may say: %s', (text) => {
    expect(findForeignTarget(text, 'barn')).toBeUndefined()
  })

  it.each([
    'CREATE TABLE public.intruder (id int)',
    'ALTER TABLE public.users ADD COLUMN x int',
    'DROP TABLE "public"."devices"',
    'CREATE INDEX ON public.devices (name)',
    'CREATE TRIGGER t AFTER INSERT ON public.devices EXECUTE FUNCTION barn.f()',
    'UPDATE public.users SET role = 1',
    'DELETE FROM other.cows',
    "SELECT protect_tenant_table('public.users')",
    'GRANT SELECT ON public.users TO pms_app',
    'CREATE TABLE barn.x (u uuid REFERENCES public.users)',
    'CREATE TABLE barn.x (u uuid REFERENCES public.api_keys ON DELETE CASCADE)',
    'CREATE SCHEMA elsewhere',
    'CREATE EXTENSION file_fdw',
    'SET ROLE postgres',
    "COPY barn.cows FROM PROGRAM 'id'",
    "DO $$ BEGIN EXECUTE 'DROP TABLE public.users'; END $$",
    'ALTER ROLE pms_app SUPERUSER',
    'CREATE TABLE barn.a (id int); DROP TABLE public.users',
    'SELECT 1',
  ])('may not say: %s', (text) => {
    expect(findForeignTarget(text, 'barn')).toBeTypeOf('string')
  })
})
