// SPDX-License-Identifier: AGPL-3.0-only
import { LICENSE_CODES } from './license/codes.ts'

/** Sentences for people: Chinese first, English complete. `{name}` takes a parameter. */
export type ErrorText = { status: number; zh: string; en: string }

/**
 * Every error a caller can act on. Codes are stable and never reused;
 * docs/reference/errors.md is generated from this table.
 */
export const errorCodes = {
  VALIDATION_FAILED: { status: 400, zh: '请求内容不合法。', en: 'The request is not valid.' },
  CURSOR_INVALID: {
    status: 400,
    zh: '分页游标无效，请从第一页重新开始。',
    en: 'The cursor is not valid; start again from the first page.',
  },
  TOKEN_INVALID: { status: 401, zh: '登录状态无效或已过期，请重新登录。', en: 'The session is missing, not valid or over; sign in again.' },
  TOKEN_EXPIRED: {
    status: 401,
    zh: '刷新令牌无效、已使用或已过期，请重新登录。',
    en: 'The refresh token is not valid, was used, or is over; sign in again.',
  },
  LOGIN_FAILED: { status: 401, zh: '邮箱或密码不对。', en: 'The e-mail or the password is wrong.' },
  DEVICE_UNAUTHORIZED: { status: 401, zh: '设备令牌未知，或设备已停用。', en: 'The device token is unknown, or the device is disabled.' },
  PERMISSION_DENIED: { status: 403, zh: '没有权限：需要 {permission}。', en: 'No permission: {permission} is needed.' },
  CSRF: { status: 403, zh: '请求来源不对。', en: 'The request does not come from our own pages.' },
  HTTPS_REQUIRED: { status: 403, zh: '本站点只接受 HTTPS。', en: 'This site accepts HTTPS only.' },
  REAUTH_REQUIRED: { status: 403, zh: '请再次输入密码后重试。', en: 'Enter your password again, then repeat this.' },
  OTA_MISMATCH: {
    status: 400,
    zh: '标题或版本不是分配给该设备的升级包。',
    en: 'Title and version are not those of the package assigned to the device.',
  },
  OTA_UPLOAD_BROKEN: { status: 400, zh: '上传中断或耗时过长。', en: 'The upload broke off or took too long.' },
  OTA_NOT_FOUND: { status: 404, zh: '没有可下载的升级包内容。', en: 'There is no package content to download.' },
  NOT_FOUND: { status: 404, zh: '找不到。', en: 'Not found.' },
  METHOD_NOT_ALLOWED: { status: 405, zh: '不支持该请求方法。', en: 'This method is not supported.' },
  POLL_TIMEOUT: { status: 408, zh: '等待超时，没有新内容。', en: 'Nothing came within the time of the poll.' },
  NAME_TAKEN: { status: 409, zh: '名称“{name}”已被使用。', en: 'The name "{name}" is taken.' },
  BACKUP_ELSEWHERE: {
    status: 409,
    zh: '本服务器的数据库登录不能读取全部表。请用 iot-pms migrate 的登录运行 iot-pms backup。',
    en: 'The database login of this server may not read all tables. Run iot-pms backup with that of iot-pms migrate.',
  },
  EMAIL_TAKEN: { status: 409, zh: '邮箱“{email}”已被使用。', en: 'The e-mail "{email}" is taken.' },
  TOKEN_TAKEN: { status: 409, zh: '该令牌或凭证已被使用。', en: 'This token or credential is in use.' },
  LAST_ADMIN: { status: 409, zh: '至少要保留一位可登录的管理员。', en: 'At least one administrator who can sign in must remain.' },
  PROVISIONING_TAKEN: {
    status: 409,
    zh: '该自动注册密钥已被另一产品使用。',
    en: 'Another product uses this provisioning key and secret.',
  },
  ALARM_OPEN: { status: 409, zh: '告警仍为活动状态，恢复后才能删除。', en: 'The alarm is active; only cleared ones can be deleted.' },
  COMMENT_CLOSED: { status: 409, zh: '备注只能在 15 分钟内修改。', en: 'A comment can be edited for 15 minutes only.' },
  ASSIGNEE_NO_ACCESS: { status: 422, zh: '该用户看不到此设备。', en: 'This user does not see the device.' },
  RULE_NAME_TAKEN: { status: 409, zh: '规则名称“{name}”已被使用。', en: 'The rule name "{name}" is taken.' },
  LIMIT_ALARM_RULES: { status: 402, zh: '规则数量已达上限 {limit}。', en: 'There are {limit} rules already.' },
  RULE_INVALID: { status: 422, zh: '规则不合法。', en: 'The rule is not valid.' },
  RULE_TOO_LARGE: { status: 413, zh: '规则超过 {limit} 字节。', en: 'The rule is larger than {limit} bytes.' },
  PREVIEW_TOO_LARGE: {
    status: 413,
    zh: '预演范围过大：最多 31 天、20 台设备、{limit} 个数据点。',
    en: 'The preview is too large: at most 31 days, 20 devices and {limit} points.',
  },
  IF_MATCH_REQUIRED: { status: 428, zh: '缺少 If-Match 请求头。', en: 'The header If-Match is missing.' },
  PRODUCT_IN_USE: { status: 409, zh: '产品下还有设备。', en: 'The product still has devices.' },
  OTA_PACKAGE_EXISTS: {
    status: 409,
    zh: '该产品已有同类型、同标题和版本的升级包。',
    en: 'The product has a package of this kind, title and version already.',
  },
  OTA_PACKAGE_ASSIGNED: {
    status: 409,
    zh: '升级包正分配给产品或设备，请先取消分配。',
    en: 'The package is assigned to a product or to devices; take it away from them first.',
  },
  OTA_UPLOAD_REPLACED: {
    status: 409,
    zh: '同一升级包另有一次上传后开始，本次上传作废。',
    en: 'Another upload to this package began later; this one does not count.',
  },
  RETENTION_RULE_EXISTS: {
    status: 409,
    zh: '这个范围已有一条保留规则。',
    en: 'There is a retention rule for this product and key pattern already.',
  },
  IDEMPOTENCY_RUNNING: {
    status: 409,
    zh: '同一 Idempotency-Key 的请求仍在处理。',
    en: 'A request with this Idempotency-Key is still running.',
  },
  IDEMPOTENCY_MISMATCH: {
    status: 422,
    zh: '该 Idempotency-Key 已用于另一个请求。',
    en: 'This Idempotency-Key was used for another request.',
  },
  DEVICE_OFFLINE: { status: 409, zh: '设备当前不接收命令。', en: 'The device takes no commands at the moment.' },
  COMMAND_QUEUE_FULL: {
    status: 409,
    zh: '设备已有 {limit} 条未完成的命令。',
    en: 'The device has {limit} commands that are not finished.',
  },
  DEVICE_CLAIMED: { status: 409, zh: '设备已被认领。', en: 'The device is claimed already.' },
  IN_USE: { status: 409, zh: '仍在使用中。', en: 'It is still in use.' },
  STATE_CONFLICT: { status: 409, zh: '共享状态已被他人修改。', en: 'Somebody else changed the shared state meanwhile.' },
  TRANSITION_ILLEGAL: {
    status: 409,
    zh: '状态“{state}”不允许“{event}”：{reason}。',
    en: 'The event "{event}" is not possible in state "{state}": {reason}.',
  },
  JOB_STATE: { status: 409, zh: '该任务当前状态为“{state}”，不能执行此操作。', en: 'The job is {state}; this cannot be done with it.' },
  SCHEDULE_LIMIT: { status: 409, zh: '计划任务已达 {limit} 个。', en: 'There are {limit} schedules already.' },
  VERSION_CONFLICT: { status: 412, zh: '内容已被他人修改。', en: 'Somebody else has changed this meanwhile.' },
  BODY_TOO_LARGE: { status: 413, zh: '请求体超过 {limit} 字节。', en: 'The body is larger than {limit} bytes.' },
  JOB_TOO_LARGE: { status: 413, zh: '任务数据超过 {limit} 字节。', en: 'The data of a job is larger than {limit} bytes.' },
  TOO_MANY_POINTS: { status: 413, zh: '单条消息超过 {limit} 个数据点。', en: 'A message holds more than {limit} points.' },
  EXPORT_TOO_LARGE: {
    status: 413,
    zh: '导出共 {count} 行，超过 {limit} 行，请缩小时间范围。',
    en: 'The export has {count} rows, more than {limit}; narrow the time range.',
  },
  CONTENT_TYPE: { status: 415, zh: '不支持该内容类型。', en: 'This content type is not supported.' },
  PAYLOAD_MALFORMED: { status: 400, zh: '报文不是合法 JSON。', en: 'The payload is not valid JSON.' },
  SHAPE_INVALID: { status: 400, zh: '报文结构不对。', en: 'The payload has the wrong shape.' },
  OTA_CONTENT_WRONG: {
    status: 422,
    zh: '上传内容的大小或校验和与给出的不符。',
    en: 'The size or the checksum of what was uploaded is not the one that was given.',
  },
  ATTRIBUTE_RESERVED: {
    status: 422,
    zh: '属性“{key}”由系统维护，不能修改。',
    en: 'The attribute "{key}" is kept by the server and can only be read.',
  },
  UNPROCESSABLE: { status: 422, zh: '内容不合理。', en: 'The content makes no sense.' },
  CLAIM_REFUSED: {
    status: 422,
    zh: '没有可认领的设备，或密钥不对，或已过期。',
    en: 'There is no such device to claim, its secret is another one, or its time is over.',
  },
  JOB_DATA_INVALID: { status: 422, zh: '任务数据不合法。', en: 'The data of the job is not valid.' },
  QUEUE_UNKNOWN: { status: 422, zh: '没有队列“{queue}”。', en: 'There is no queue "{queue}".' },
  FLOW_CYCLE: { status: 422, zh: '任务流程存在循环或未知依赖。', en: 'The flow has a cycle or names a job that is not in it.' },
  CRON_INVALID: { status: 422, zh: '计划表达式不对：{reason}。', en: 'The expression of the schedule is not valid: {reason}.' },
  SCHEDULE_EMPTY: { status: 422, zh: '该计划永远不会触发。', en: 'The schedule would never fire.' },
  CHANNEL_TYPE_UNKNOWN: { status: 422, zh: '没有渠道类型“{type}”。', en: 'There is no channel type "{type}".' },
  CHANNEL_URL_INVALID: { status: 422, zh: '地址不属于 {host}。', en: 'The address is not one of {host}.' },
  CHANNEL_RETIRED: { status: 422, zh: '该服务已停用。', en: 'The provider has retired this service.' },
  CHANNEL_CONFIG: { status: 422, zh: '渠道配置不合法。', en: 'The configuration of the channel is not valid.' },
  NO_RECIPIENT: { status: 422, zh: '没有可用的接收人。', en: 'Nobody can receive this.' },
  CODE_INVALID: { status: 422, zh: '验证码不对或已失效。', en: 'The code is wrong or no longer good.' },
  MESSAGE_CONTENT: { status: 422, zh: '正文与模板须二选一。', en: 'Give either a text or a template.' },
  TEXT_INVALID: { status: 422, zh: '文本含有非法字符。', en: 'The text holds characters that are not allowed.' },
  TEMPLATE_INVALID: {
    status: 422,
    zh: '模板语法错误（第 {line} 行第 {column} 列）。',
    en: 'The template is not valid (line {line}, column {column}).',
  },
  TEMPLATE_VARIABLE: { status: 422, zh: '模板变量“{name}”不存在。', en: 'There is no variable "{name}".' },
  TEMPLATE_LIMIT: { status: 422, zh: '模板过大或运行过久。', en: 'The template is too large or runs too long.' },
  ROUTING_INVALID: { status: 422, zh: '路由配置不合法。', en: 'The routing is not valid.' },
  SILENCE_INVALID: { status: 422, zh: '静默规则不合法。', en: 'The silence is not valid.' },
  OUTBOUND_URL_BLOCKED: { status: 422, zh: '不允许连接该地址（{class}）。', en: 'This address may not be connected to ({class}).' },
  RATE_LIMIT_SYNTAX: { status: 422, zh: '速率限制写法不对。', en: 'A rate limit is not written as count:seconds.' },
  POINTS_REJECTED: { status: 422, zh: '所有数据点都被拒收。', en: 'Every point was rejected.' },
  PASSWORD_WEAK: { status: 422, zh: '密码太弱。', en: 'The password is too weak.' },
  PASSWORD_WRONG: { status: 422, zh: '密码不对。', en: 'The password is wrong.' },
  TOKEN_RESERVED: { status: 422, zh: '该令牌是保留字，请换一个。', en: 'This token is a reserved word; choose another.' },
  RANGE_TOO_LARGE: {
    status: 422,
    zh: '结果会超过 {limit} 个区间或数据点。',
    en: 'The answer would have more than {limit} buckets or points.',
  },
  TIME_ZONE_UNKNOWN: { status: 422, zh: '未知时区“{timeZone}”。', en: 'Unknown time zone "{timeZone}".' },
  RATE_LIMITED: { status: 429, zh: '请求太频繁，请稍后再试。', en: 'Too many requests; try again later.' },
  LOGIN_DELAYED: { status: 429, zh: '尝试次数过多，请在 {seconds} 秒后再试。', en: 'Too many attempts; try again in {seconds} s.' },
  QUEUE_FULL: { status: 429, zh: '任务队列“{queue}”已满，请稍后再试。', en: 'The queue "{queue}" is full; try again later.' },
  INTERNAL: {
    status: 500,
    zh: '服务器内部错误，日志中可按编号查到原因。',
    en: 'Internal error; the log has the cause under this trace id.',
  },
  SEAL_BROKEN: { status: 500, zh: '密文无法解开。', en: 'A sealed value does not open.' },
  SETUP_REQUIRED: { status: 503, zh: '请先完成初始设置。', en: 'Finish the set-up first.' },
  STORE_UNAVAILABLE: {
    status: 503,
    zh: '数据库暂时不可用，请稍后重试。',
    en: 'The database is not available at the moment; repeat later.',
  },
  AUDIT_UNAVAILABLE: {
    status: 500,
    zh: '审计记录无法写入，操作未执行。',
    en: 'The audit record could not be written; nothing was changed.',
  },
  OVERLOADED: { status: 503, zh: '服务器繁忙，请稍后重试。', en: 'The server is busy; repeat later.' },
  STORAGE_FULL: {
    status: 503,
    zh: '磁盘将满，暂不接收数据；腾出空间后自动恢复。',
    en: 'The disk is almost full: no data is accepted until there is room again.',
  },
  COMMAND_FAILED: { status: 502, zh: '命令无法发送给设备。', en: 'The command could not be sent to the device.' },
  COMMAND_TIMEOUT: {
    status: 504,
    zh: '设备没有在时限内接收命令或作出应答。',
    en: 'The device did not take or answer the command in time.',
  },
  DISK_LOW: {
    status: 507,
    zh: '磁盘空间不足，导出等占用空间的操作暂停。',
    en: 'The disk is low: exports and other work that takes room wait until there is more.',
  },
  ...LICENSE_CODES,
} as const satisfies Record<string, ErrorText>

export type ErrorCode = keyof typeof errorCodes

/** One refused member: `pointer` is an RFC 6901 JSON pointer into the body, or `?name` of the query. */
export type FieldError = { pointer: string; detail: string; code?: string }

/** Codes that modules bring; they begin with the module's name. */
const moduleErrors = new Map<string, ErrorText>()

/** Makes the errors of a module known; they stay so when the module stops. */
export function defineErrors(errors: Readonly<Record<string, ErrorText>>): void {
  for (const [code, text] of Object.entries(errors)) moduleErrors.set(code, text)
}

const textOf = (code: string): ErrorText => moduleErrors.get(code) ?? errorCodes[code as ErrorCode]

/** An error of a module, by one of the codes of its manifest or of core's. */
export function problem(code: string, options?: ConstructorParameters<typeof ProblemError>[1]): ProblemError {
  return new ProblemError(code as ErrorCode, options)
}

/** An error a caller can act on; {@link toProblem} turns it into an answer. */
export class ProblemError extends Error {
  readonly code: ErrorCode
  readonly params: Record<string, string | number>
  readonly errors: FieldError[] | undefined
  /** Whole seconds for `Retry-After`. */
  readonly retryAfterS: number | undefined
  /** Further members of the answer, such as `limit` and `used`; a `detail` among them replaces the usual one. */
  readonly members: (language: Language) => Record<string, unknown>

  constructor(
    code: ErrorCode,
    options: {
      params?: Record<string, string | number>
      errors?: FieldError[]
      retryAfterS?: number
      members?: Record<string, unknown> | ((language: Language) => Record<string, unknown>)
      cause?: unknown
    } = {},
  ) {
    super(fill(textOf(code).en, options.params ?? {}), { cause: options.cause })
    this.name = 'ProblemError'
    this.code = code
    this.params = options.params ?? {}
    this.errors = options.errors
    this.retryAfterS = options.retryAfterS
    const { members = {} } = options
    this.members = typeof members === 'function' ? members : () => members
  }

  get status(): number {
    return textOf(this.code).status
  }
}

export type Language = 'zh' | 'en'

/** RFC 9457 problem details with our stable `code`. */
export type Problem = {
  type: string
  title: string
  status: number
  code: ErrorCode
  detail: string
  traceId: string
  errors?: FieldError[]
}

/** Builds the body of an `application/problem+json` answer in the asked language. */
export function toProblem(error: ProblemError, language: Language, traceId: string): Problem {
  const text = textOf(error.code)
  const sentence = fill(text[language], error.params)
  return {
    type: `docs/errors/${error.code}`,
    title: sentence,
    status: text.status,
    code: error.code,
    detail: error.errors?.length ? `${sentence} ${error.errors.map((one) => one.detail).join(' ')}` : sentence,
    traceId,
    ...error.members(language),
    ...(error.errors ? { errors: error.errors } : {}),
  }
}

function fill(text: string, params: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(params[name] ?? whole))
}

/**
 * The start cannot go on for a reason an administrator can mend.
 * The process ends with `exitCode` (sysexits) and prints code, message and hint.
 */
export class StartError extends Error {
  readonly code: string
  readonly exitCode: number
  readonly hint: string

  constructor(code: string, exitCode: number, message: string, hint: string, cause?: unknown) {
    super(message, { cause })
    this.name = 'StartError'
    this.code = code
    this.exitCode = exitCode
    this.hint = hint
  }
}

/** How the process ends (sysexits where one fits). */
export const exitCodes = {
  usage: 64,
  damaged: 65,
  unavailable: 69,
  internal: 70,
  notWritable: 73,
  otherInstance: 75,
  config: 78,
} as const
