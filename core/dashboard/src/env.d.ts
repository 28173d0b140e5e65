// SPDX-License-Identifier: AGPL-3.0-only
// Also for the pages of modules, which lie where none of these are found.
/// <reference types="node" />
/// <reference types="vite/client" />
/// <reference types="unplugin-icons/types/vue" />
/// <reference types="element-plus/global" />
declare module 'uplot/dist/uPlot.min.css'

// For tools that do not read .vue files; vue-tsc takes the real types.
declare module '*.vue' {
  import type { DefineComponent } from 'vue'

  const component: DefineComponent
  export default component
}
