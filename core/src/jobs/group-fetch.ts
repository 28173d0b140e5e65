// SPDX-License-Identifier: AGPL-3.0-only
import type { PgBoss } from 'pg-boss'

/** How the library's fetch of a queue with groups begins to look at them; the pinned version's text, watched by a test. */
const groupFetch = /active_group_(?:probe|count_map)[\s\S]*FOR UPDATE OF j SKIP LOCKED/
const queueOf = /j\.name = '([^']+)'/

/**
 * The library counts a group's running jobs and takes more in one statement, so two fetches at the same moment see
 * the same count and together pass the limit. Such a fetch takes a lock of its queue first, and sees what the one
 * before it took.
 */
export function serialiseGroupFetches(boss: PgBoss): void {
  const database = boss.getDb()
  const plain = database.executeSql.bind(database)
  database.executeSql = async (text, values) => {
    const queue = groupFetch.test(text) ? queueOf.exec(text)?.[1] : undefined
    if (queue === undefined) return plain(text, values)
    const transaction = await database.beginTransaction!()
    try {
      await transaction.db.executeSql('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`iot-pms fetch ${queue}`])
      const answer = await transaction.db.executeSql(text, values)
      await transaction.commit()
      return answer
    } catch (error) {
      await transaction.rollback()
      throw error
    }
  }
}
