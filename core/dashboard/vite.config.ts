// SPDX-License-Identifier: AGPL-3.0-only
import { fileURLToPath } from 'node:url'
import vueI18n from '@intlify/unplugin-vue-i18n/vite'
import vue from '@vitejs/plugin-vue'
import icons from 'unplugin-icons/vite'
import { ElementPlusResolver } from 'unplugin-vue-components/resolvers'
import components from 'unplugin-vue-components/vite'
import { defineConfig } from 'vite'

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))

export default defineConfig({
  root: here('.'),
  base: './',
  plugins: [
    vue(),
    vueI18n({
      include: [here('src/i18n/zh/**'), here('src/i18n/en/**'), here('../../{verticals,enterprise,saas}/*/dashboard/i18n/**')],
      dropMessageCompiler: true,
    }),
    // Found from here, not from where the build was called.
    icons({ compiler: 'vue3', scale: 1, collectionsNodeResolvePath: here('.') }),
    // Our own components are imported by hand; only Element Plus is resolved by its prefix.
    components({ dts: false, dirs: [], resolvers: [ElementPlusResolver({ importStyle: 'css' })] }),
  ],
  // Pages of modules lie outside of this folder; what they share with us is found from here, once.
  resolve: { dedupe: ['vue', 'vue-i18n', 'vue-router', 'element-plus'] },
  build: {
    outDir: here('dist'),
    emptyOutDir: true,
    manifest: 'chunks.json',
    // The default target is newer than browsers our users have [D-12].
    target: 'chrome99',
    cssTarget: 'chrome99',
    // Inline modules and the inline polyfill would break the content policy [D-94].
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    chunkSizeWarningLimit: 600,
    rolldownOptions: { output: { chunkFileNames: 'assets/[name]-[hash].js', entryFileNames: 'assets/[name]-[hash].js' } },
  },
  server: { proxy: { '/api': { target: 'http://127.0.0.1:8080', ws: true } } },
})
