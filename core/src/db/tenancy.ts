// SPDX-License-Identifier: AGPL-3.0-only

/**
 * [SC-80] Tables with tenant_id, of modules too, that are not behind forced row level security with our two complete
 * policies.
 *
 * @param query runs a statement as any login that may read the catalog
 */
export async function findOpenTables(query: (text: string) => Promise<readonly { name: string }[]>): Promise<string[]> {
  const rows = await query(`
    select case n.nspname when 'public' then c.relname else n.nspname || '.' || c.relname end as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
    where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'jobs') and not (
      c.relrowsecurity and c.relforcerowsecurity
      and (select array_agg(p.polname::text order by p.polname) from pg_policy p where p.polrelid = c.oid) = array['maintenance', 'tenant']
      and (select bool_and(p.polqual is not null and p.polwithcheck is not null) from pg_policy p where p.polrelid = c.oid))
    order by 1`)
  return rows.map(({ name }) => name)
}
