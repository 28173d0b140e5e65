// SPDX-License-Identifier: AGPL-3.0-only
declare module 'uplot/dist/uPlot.min.css'

// For tools that do not read .vue files; vue-tsc takes the real types.
declare module '*.vue' {
  import type { DefineComponent } from 'vue'

  const component: DefineComponent
  export default component
}
