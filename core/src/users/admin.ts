// SPDX-License-Identifier: AGPL-3.0-only
import type { Context } from '../context.ts'
import { StartError, exitCodes } from '../errors.ts'
import { createLink } from './links.ts'
import type { Link } from './links.ts'
import { findUserByEmail, hasUsers } from './people.ts'
import { addSecurityEvent, systemOrigin } from './security-events.ts'
import { createSetupLink } from './setup.ts'

/** What `iot-pms admin …` does at the server's console, where whoever may run it owns the installation anyway. */

/**
 * `iot-pms admin setup-link`
 *
 * @throws {StartError} `SETUP_DONE` once there is a user
 */
export async function createConsoleSetupLink(context: Context): Promise<Link> {
  const { db, rootTenant } = context
  if (await db.withTenant(rootTenant, (tx) => hasUsers(tx, context))) {
    throw new StartError(
      'SETUP_DONE',
      exitCodes.usage,
      'The set-up is finished: users exist.',
      'For a lost password: iot-pms admin reset-password EMAIL',
    )
  }
  return createSetupLink(context)
}

/**
 * `iot-pms admin reset-password EMAIL` [SC-11]
 *
 * @throws {StartError} `USER_UNKNOWN`
 */
export async function createConsoleResetLink(context: Context, email: string): Promise<Link> {
  const { db, rootTenant, clock } = context
  return db.withTenant(rootTenant, async (tx) => {
    const user = await findUserByEmail(tx, context, email)
    if (!user) {
      throw new StartError(
        'USER_UNKNOWN',
        exitCodes.usage,
        `No user has the e-mail ${email}.`,
        'Check the spelling; the dashboard lists all users under 用户 Users.',
      )
    }
    await addSecurityEvent(tx, rootTenant.tenantId, systemOrigin, clock.now(), {
      actor: 'console',
      action: 'password.reset-link',
      target: `user:${user.id}`,
      outcome: 'ok',
    })
    return createLink(tx, context, 'reset', { userId: user.id })
  })
}
