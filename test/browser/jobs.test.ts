// SPDX-License-Identifier: AGPL-3.0-only
import { startTestPlatform, testAdmin } from '@iot-pms/core/testing'
import type { TestPlatform } from '@iot-pms/core/testing'
import type { Browser, Page } from 'playwright-core'
import { Type } from 'typebox'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { defineJob } from '../../core/src/jobs/define.ts'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'

const def = defineJob({
  name: 'test-report',
  title: { zh: '测试报表', en: 'Test reports' },
  data: Type.Object({ tenantId: Type.String(), report: Type.String(), token: Type.String() }),
  batch: 10,
  perNode: 1,
  retry: { strategy: 'never' },
  expireMs: 60_000,
  deadLetter: true,
})

describe.skipIf(!hasBrowser())('the jobs console', () => {
  let platform: TestPlatform
  let browser: Browser
  let page: Page
  let fails = true
  let runs = 0

  beforeAll(async () => {
    platform = await startTestPlatform()
    await platform.context.jobs.handle(def, async () => {
      if (fails) throw new Error('the printer is on fire')
      runs++
    })
    browser = await launchBrowser()
    page = await (await openContext(browser)).newPage()
    page.setDefaultTimeout(30_000)
    await signIn(page, platform, '', testAdmin)
  }, 120_000)
  afterAll(async () => {
    await browser?.close()
    await platform?.close()
  })

  const open = async (path: string, name: string) => {
    await page.goto(platform.url + path)
    await waitForPage(page, name)
  }
  const send = (report: string) =>
    platform.context.jobs.send(def, { tenantId: platform.context.rootTenant.tenantId, report, token: 'very-secret' })
  const row = (text: string) => page.getByRole('row').filter({ hasText: text })

  it('shows a failed job with its error and without its secrets, and runs it again', async () => {
    const id = (await send('monthly'))!
    await page.getByRole('link', { name: '任务与运行' }).click()
    await waitForPage(page, 'jobs.queues')
    await row('测试报表').getByRole('link', { name: '测试报表' }).click()
    await waitForPage(page, 'jobs.queue')
    await row(id).locator('[data-job-state=failed]').waitFor()
    await row(id).locator('[data-open=job]').click()
    const drawer = page.getByRole('dialog')
    await drawer.getByText('the printer is on fire').first().waitFor()
    await drawer.getByText('"monthly"').waitFor()
    expect(await drawer.textContent()).not.toContain('very-secret')
    await page.keyboard.press('Escape')
    await drawer.waitFor({ state: 'hidden' })
    fails = false
    await row(id).locator('[data-act=retry]').click()
    await row(id).locator('[data-job-state=completed]').waitFor()
    expect(runs).toBe(1)
    // It is done: neither act is offered any more.
    expect(await row(id).locator('[data-act]').count()).toBe(0)
  })

  it('says what a redrive would move, and moves it', async () => {
    fails = true
    await send('yearly')
    await expect.poll(async () => Number(await page.locator('[data-count=dead]').textContent())).toBeGreaterThan(0)
    await page.locator('[data-filter=dead]').click()
    await row('死信').first().waitFor()
    fails = false
    const before = runs
    await page.locator('[data-open=redrive]').click()
    const dialog = page.getByRole('dialog')
    await dialog.locator('[data-part=redrive]').getByText('test-report').waitFor()
    await dialog.getByRole('button', { name: '重新投递', exact: true }).click()
    await expect.poll(() => runs).toBeGreaterThan(before)
    await page.getByText('没有死信。').waitFor()
    expect(new URL(page.url()).searchParams.get('state')).toBe('dead')
  })

  it('cancels a job that waits for its time', async () => {
    const id = (await platform.context.jobs.send(
      def,
      { tenantId: platform.context.rootTenant.tenantId, report: 'later', token: 'x' },
      { startAfter: new Date(Date.now() + 3_600_000) },
    ))!
    await open('/jobs/queues/test-report?state=created', 'jobs.queue')
    await row(id).locator('[data-act=cancel]').click()
    await page.getByText('没有这种状态的任务。').waitFor()
    await page.getByRole('button', { name: '已取消', exact: true }).click()
    await row(id).locator('[data-job-state=cancelled]').waitFor()
    const job = await platform.call('GET', `/api/v1/job-queues/test-report/jobs/${id}`)
    expect(job.json()).toMatchObject({ state: 'cancelled' })
  })

  it('makes a schedule with its next instants in sight, runs it now, switches it off and deletes it', async () => {
    await open('/jobs/schedules', 'jobs.schedules')
    await page.getByText('没有定时任务。').waitFor()
    await page.locator('[data-open=schedule]').first().click()
    const dialog = page.getByRole('dialog')
    await dialog.locator('[name=name]').fill('每周报表')
    await dialog.locator('[name=queue]').selectOption('test-report')
    await dialog.locator('[name=cron]').fill('99 8 * * 1')
    await expect.poll(() => dialog.locator('[name=cron]').getAttribute('aria-invalid')).toBe('true')
    await dialog.locator('[name=cron]').fill('0 8 * * 1')
    await dialog.locator('[data-part=next]').getByText('08:00:00').first().waitFor()
    await dialog.locator('[name=data]').fill('{"report": "weekly", "token": "x"}')
    await dialog.getByRole('button', { name: '新建定时任务' }).click()
    await row('每周报表').locator('[data-enabled=true]').waitFor()
    const before = runs
    await row('每周报表').locator('[data-act=run]').click()
    await expect.poll(() => runs).toBeGreaterThan(before)
    await row('每周报表').locator('[data-menu=row]').click()
    await page.getByRole('menuitem', { name: '停用' }).click()
    await row('每周报表').locator('[data-enabled=false]').waitFor()
    await row('每周报表').locator('[data-menu=row]').click()
    await page.getByRole('menuitem', { name: '删除' }).click()
    await page.getByRole('dialog').getByRole('button', { name: '删除' }).click()
    await page.getByText('没有定时任务。').waitFor()
  })

  it('follows a long request to its end', async () => {
    await open('/jobs/operations', 'jobs.operations')
    await page.getByText('没有后台操作。').waitFor()
    const begun = await platform.call('POST', '/api/v1/notifications/deliveries/retry-all', { body: { state: 'failed' } })
    expect(begun.status, begun.text).toBe(202)
    await row('重试通知').locator('[data-operation-state=succeeded]').waitFor()
    expect(await row('重试通知').locator('[data-act]').count()).toBe(0)
  })

  it('lists workers with their health and restarts one', async () => {
    await open('/jobs/workers', 'jobs.workers')
    await row('test-report').locator('[data-worker-state=running]').waitFor()
    await row('test-report').locator('[data-open=restart]').click()
    await page.getByRole('dialog').getByRole('button', { name: '重启' }).click()
    await page.getByText('test-report 已重启').waitFor()
    const before = runs
    await send('after the restart')
    await expect.poll(() => runs).toBeGreaterThan(before)
  })

  it('lets out of quarantine what kept failing', async () => {
    fails = true
    await open('/jobs/quarantine', 'jobs.quarantine')
    await page.getByText('没有被隔离的任务。').waitFor()
    const listed = async () => (await platform.call('GET', '/api/v1/job-quarantine')).json<{ items: unknown[] }>().items.length
    for (let sent = 0; sent < 3; sent++) {
      const id = (await send('poison'))!
      const stateOf = async () => (await platform.call('GET', `/api/v1/job-queues/test-report/jobs/${id}`)).json<{ state: string }>().state
      await expect.poll(stateOf).toBe('failed')
    }
    await expect.poll(listed).toBe(1)
    await page.reload()
    await waitForPage(page, 'jobs.quarantine')
    await row('test-report').locator('[data-act=release]').click()
    await page.getByRole('dialog').getByRole('button', { name: '放行' }).click()
    await page.getByText('没有被隔离的任务。').waitFor()
    expect(await listed()).toBe(0)
  })

  it('says that a queue does not exist, and who may not look is told which permission is missing', async () => {
    await open('/jobs/queues/nobody', 'jobs.queue')
    await page.getByText('没有这个队列。').waitFor()
    const vera = { email: 'vera@example.com', password: testAdmin.password }
    await platform.call('POST', '/api/v1/users', { body: { name: 'Vera', role: 'viewer', ...vera } })
    const other = await (await openContext(browser)).newPage()
    await signIn(other, platform, '', vera)
    expect(await other.getByRole('link', { name: '任务与运行' }).count()).toBe(0)
    await other.goto(`${platform.url}/jobs/queues`)
    await other.getByText('job.read').waitFor()
    await other.context().close()
  })
})
