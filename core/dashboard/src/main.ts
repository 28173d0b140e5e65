// SPDX-License-Identifier: AGPL-3.0-only
import { createDashboard } from './create-dashboard.ts'

const app = await createDashboard()
app.mount('#app')
