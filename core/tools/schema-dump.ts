// SPDX-License-Identifier: AGPL-3.0-only
import type postgres from 'postgres'

/**
 * The schema of a migrated database as SQL text in a stable order: tables with columns, constraints,
 * indexes, policies and grants, then functions. The embedded PostgreSQL brings no pg_dump.
 */
export async function dumpSchema(sql: postgres.Sql): Promise<string> {
  const tables = await sql<
    { oid: number; name: string; kind: string; partition: string | null; rls: boolean; forced: boolean; owner: string }[]
  >`
    select c.oid::int, c.relname as name, c.relkind as kind, pg_get_partkeydef(c.oid) as partition, c.relrowsecurity as rls, c.relforcerowsecurity as forced,
      pg_get_userbyid(c.relowner) as owner
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by c.relname`
  const parts: string[] = []
  for (const table of tables) parts.push(await dumpTable(sql, table))
  const functions = await sql<{ definition: string; owner: string; grants: string[] | null; signature: string }[]>`
    select pg_get_functiondef(p.oid) as definition, pg_get_userbyid(p.proowner) as owner, p.oid::regprocedure::text as signature,
      (select array_agg(grantee::regrole::text order by 1) from aclexplode(p.proacl) where grantee <> p.proowner and grantee <> 0) as grants
    from pg_proc p where p.pronamespace = 'public'::regnamespace order by p.oid::regprocedure::text`
  for (const { definition, owner, grants, signature } of functions) {
    parts.push(`${definition.trim()};\n-- owner ${owner}${grants ? `; execute: ${grants.join(', ')}` : ''} (${signature})\n`)
  }
  return `-- SPDX-License-Identifier: AGPL-3.0-only\n-- Written by "pnpm generate" from a migrated database; the migrations are the source.\n\n${parts.join('\n')}`
}

async function dumpTable(
  sql: postgres.Sql,
  table: { oid: number; name: string; partition: string | null; rls: boolean; forced: boolean; owner: string },
): Promise<string> {
  const columns = await sql<{ line: string }[]>`
    select format('%I %s%s%s', attname, format_type(atttypid, atttypmod), case when attnotnull then ' NOT NULL' else '' end,
      case when attidentity <> '' then ' GENERATED AS IDENTITY' when d.adbin is not null then ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) else '' end) as line
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = ${table.oid} and attnum > 0 and not attisdropped order by attnum`
  const constraints = await sql<{ line: string }[]>`
    select format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) as line from pg_constraint
    where conrelid = ${table.oid} and contype <> 'n' order by contype = 'p' desc, conname`
  const indexes = await sql<{ line: string }[]>`
    select pg_get_indexdef(indexrelid) || ';' as line from pg_index i
    where indrelid = ${table.oid} and not exists (select 1 from pg_constraint c where c.conindid = i.indexrelid) order by 1`
  const policies = await sql<{ line: string }[]>`
    select format('CREATE POLICY %I ON %s TO %s%s%s;', polname, polrelid::regclass, (select string_agg(r::regrole::text, ', ' order by 1) from unnest(polroles) r),
      ' USING (' || pg_get_expr(polqual, polrelid) || ')', ' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')') as line
    from pg_policy where polrelid = ${table.oid} order by polname`
  const grants = await sql<{ line: string }[]>`
    select format('GRANT %s ON %s TO %s;', string_agg(privilege_type, ', ' order by privilege_type), ${table.name}::text, grantee::regrole) as line
    from pg_class c cross join aclexplode(c.relacl) where c.oid = ${table.oid} and grantee <> c.relowner group by grantee order by grantee::regrole::text`
  const lines = (rows: readonly { line: string }[]) => rows.map((row) => row.line)
  return [
    `CREATE TABLE ${table.name} (\n${[...lines(columns), ...lines(constraints)].map((line) => `  ${line}`).join(',\n')}\n)${table.partition ? ` PARTITION BY ${table.partition}` : ''};`,
    `ALTER TABLE ${table.name} OWNER TO ${table.owner === 'pms_owner' || table.owner === 'pms_store' ? table.owner : 'CURRENT_USER'};`,
    ...(table.rls ? [`ALTER TABLE ${table.name} ENABLE ROW LEVEL SECURITY;`] : []),
    ...(table.forced ? [`ALTER TABLE ${table.name} FORCE ROW LEVEL SECURITY;`] : []),
    ...lines(indexes),
    ...lines(policies),
    ...lines(grants),
    '',
  ].join('\n')
}
