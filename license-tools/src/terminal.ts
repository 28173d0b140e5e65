// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { closeSync, openSync, readSync } from 'node:fs'
import type { Arguments } from './arguments.ts'
import { ToolError } from './errors.ts'
import type { Text } from './errors.ts'

export type Lang = 'zh' | 'en'

/** What a command gives back: members for `--json`, lines for people, the exit code. */
export type Result = { json: Record<string, unknown>; lines: (string | Text)[]; exit?: number; raw?: string }

/** [T-2] Everything beside the result goes to standard error through here. */
export type Terminal = {
  lang: Lang
  isJson: boolean
  say(text: Text): string
  /** A warning or remark; also collected for `--json`. */
  note(code: string, text: Text): void
  notes: { code: string; message: string }[]
  /** One line that is replaced on a terminal, one line per 100 elsewhere. */
  progress(done: number, total: number): void
  /** @throws NOT_CONFIRMED, CONFIRMATION_NEEDED when nobody can be asked */
  confirm(question: Text): Promise<void>
  /** Reads a line without echo. @throws KEY_PASSPHRASE_MISSING when there is no terminal */
  askSecret(prompt: Text): Promise<string>
}

const progressStep = 100

/** @param args undefined while the options are not read yet; @param host of its environment only LANG is read */
export function createTerminal(args: Arguments | undefined, host: { env: NodeJS.ProcessEnv; stderr(text: string): void }): Terminal {
  const lang = args?.choice('lang', ['zh', 'en'] as const) ?? (/^en/i.test(host.env.LANG ?? '') ? 'en' : 'zh')
  const isJson = args?.flag('json') ?? false
  const isQuiet = args?.flag('quiet') ?? false
  const isYes = args?.flag('yes') ?? false
  const say = (text: Text) => text[lang]
  const write = (text: string) => host.stderr(text)
  const notes: Terminal['notes'] = []
  return {
    lang,
    isJson,
    say,
    notes,
    note(code, text) {
      notes.push({ code, message: say(text) })
      if (!isQuiet) write(`${lang === 'zh' ? '注意：' : 'Note: '}${say(text)}\n`)
    },
    progress(done, total) {
      if (isQuiet) return
      if (process.stderr.isTTY) write(`\r${done}/${total}${done === total ? '\n' : ''}`)
      else if (done % progressStep === 0 || done === total) write(`${done}/${total}\n`)
    },
    async confirm(question) {
      if (isYes) return
      if (!process.stdin.isTTY) {
        throw new ToolError('CONFIRMATION_NEEDED', { zh: `${question.zh} 请加 --yes 确认。`, en: `${question.en} Confirm with --yes.` })
      }
      const answer = await readLine(`${say(question)} [y/N] `, true)
      if (!/^(?:y|yes|是)$/i.test(answer.trim())) {
        throw new ToolError('NOT_CONFIRMED', { zh: '未确认，什么也没有做。', en: 'Not confirmed, nothing was done.' })
      }
    },
    async askSecret(prompt) {
      if (!process.stdin.isTTY) {
        throw new ToolError('KEY_PASSPHRASE_MISSING', {
          zh: '需要口令：请用 --passphrase-file、--passphrase-fd，或在终端中运行。',
          en: 'A passphrase is needed: give --passphrase-file or --passphrase-fd, or run this in a terminal.',
        })
      }
      return readLine(say(prompt), false)
    },
  }
}

/** A line from the terminal; in raw mode nothing is echoed unless we write it. @throws INTERRUPTED */
async function readLine(prompt: string, hasEcho: boolean): Promise<string> {
  const { stdin, stderr } = process
  // Raw before the prompt is seen: what is typed at once must neither be echoed nor become a signal.
  stdin.setRawMode(true)
  stdin.resume()
  stdin.setEncoding('utf8')
  stderr.write(prompt)
  let line = ''
  let interrupt = () => {}
  try {
    return await new Promise<string>((resolve, reject) => {
      interrupt = () => reject(new ToolError('INTERRUPTED', { zh: '已中断。', en: 'Interrupted.' }))
      process.on('SIGINT', interrupt)
      process.on('SIGTERM', interrupt)
      stdin.on('data', (chunk: Buffer | string) => {
        for (const char of String(chunk)) {
          if (char === '\r' || char === '\n') return resolve(line)
          if (char === '\u0003') return interrupt()
          if (char === '\u007f' || char === '\b') line = [...line].slice(0, -1).join('')
          else line += char
          if (hasEcho) stderr.write(char)
        }
      })
    })
  } finally {
    process.off('SIGINT', interrupt)
    process.off('SIGTERM', interrupt)
    stdin.removeAllListeners('data')
    stdin.setRawMode(false)
    stdin.pause()
    stderr.write('\n')
  }
}

/** [T-4] The passphrase from the options, else from the terminal. One line feed at its end is dropped. */
export async function readPassphrase(
  args: Arguments,
  terminal: Terminal,
  env: NodeJS.ProcessEnv,
  options: { prefix?: 'new-'; isNew?: boolean; prompt: Text },
): Promise<string> {
  const prefix = options.prefix ?? ''
  const path = args.text(`${prefix}passphrase-file`)
  if (path !== undefined) return firstLine(path)
  const fd = args.integer(`${prefix}passphrase-fd`)
  if (fd !== undefined) return firstLine(fd)
  const name = args.text(`${prefix}passphrase-env`)
  if (name !== undefined) {
    terminal.note('PASSPHRASE_ENV', {
      zh: '环境变量中的口令可能被其他进程看到。',
      en: 'Other processes may see a passphrase in the environment.',
    })
    const value = env[name]
    if (value !== undefined) return value.replace(/\r?\n$/, '')
  }
  const first = await terminal.askSecret(options.prompt)
  if (options.isNew === true && (await terminal.askSecret({ zh: '再次输入：', en: 'Once more: ' })) !== first) {
    throw new ToolError('KEY_PASSPHRASE', { zh: '两次输入不一致。', en: 'The two passphrases differ.' })
  }
  return first
}

function firstLine(source: string | number): string {
  try {
    const file = typeof source === 'number' ? source : openSync(source, 'r')
    try {
      const bytes = Buffer.alloc(4096)
      let size = 0
      for (let count = -1; count !== 0 && size < bytes.length; size += count) count = readSync(file, bytes, size, bytes.length - size, null)
      return bytes.toString('utf8', 0, size).replace(/\r?\n$/, '')
    } finally {
      if (typeof source === 'string') closeSync(file)
    }
  } catch {
    throw new ToolError('KEY_PASSPHRASE_MISSING', { zh: '无法读取口令。', en: 'The passphrase cannot be read.' })
  }
}
