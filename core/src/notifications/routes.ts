// SPDX-License-Identifier: AGPL-3.0-only
import type { Context } from '../context.ts'
import type { App } from '../http/server.ts'
import { registerChannelRoutes } from './channel-routes.ts'
import type { NotificationHub } from './hub.ts'
import { registerMessageRoutes } from './message-routes.ts'
import { registerRoutingRoutes } from './routing-routes.ts'
import { registerTemplateRoutes } from './template-routes.ts'

/** Everything below /api/v1/notifications. */
export function registerNotificationRoutes(app: App, context: Context, hub: NotificationHub): void {
  registerChannelRoutes(app, context, hub)
  registerMessageRoutes(app, context, hub)
  registerRoutingRoutes(app, context)
  registerTemplateRoutes(app, context)
}
