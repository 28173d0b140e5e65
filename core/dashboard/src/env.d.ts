// SPDX-License-Identifier: AGPL-3.0-only
declare module 'uplot/dist/uPlot.min.css'
