// SPDX-License-Identifier: AGPL-3.0-only
import type { Context } from '../context.ts'
import type { App } from '../http/server.ts'
import type { Operations } from '../jobs/operations.ts'
import { registerChannelRoutes } from './channel-routes.ts'
import { registerEscalationRoutes } from './escalation-routes.ts'
import type { NotificationHub } from './hub.ts'
import { registerLogRoutes } from './log-routes.ts'
import { registerMessageRoutes } from './message-routes.ts'
import { registerPeopleRoutes } from './people-routes.ts'
import { registerPublicRoutes } from './public-routes.ts'
import { registerRoutingRoutes } from './routing-routes.ts'
import { registerSendKeyRoutes } from './send-key-routes.ts'
import type { FindKey } from './simple-send.ts'
import { registerSuppressionRoutes } from './suppressions.ts'
import { registerTemplateRoutes } from './template-routes.ts'

/** Everything below /api/v1/notifications, and the addresses that messages and scripts hold. */
export async function registerNotificationRoutes(
  app: App,
  context: Context,
  hub: NotificationHub,
  parts: { findKey: FindKey; operations: Operations },
): Promise<void> {
  registerChannelRoutes(app, context, hub)
  registerMessageRoutes(app, context, hub)
  registerLogRoutes(app, context, parts.operations)
  registerRoutingRoutes(app, context)
  registerTemplateRoutes(app, context)
  registerPeopleRoutes(app, context, hub)
  registerEscalationRoutes(app, context)
  registerSendKeyRoutes(app, context)
  registerSuppressionRoutes(app, context)
  await registerPublicRoutes(app, context, hub, parts.findKey)
}
