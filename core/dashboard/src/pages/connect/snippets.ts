// SPDX-License-Identifier: AGPL-3.0-only
import type { Credentials } from '../../api/types.ts'

/** The commands of the Connect panel (dashboard contract §11). Tests run them exactly as rendered [D-62]. */
export type Transport = 'mqtt' | 'http'
export type System = 'unix' | 'windows'
export type SnippetOptions = {
  transport: Transport
  system: System
  host: string
  mqttPort: number
  /** Origin and base, with a slash at its end. */
  http: string
  /** Filled in, or `<TOKEN>`. */
  credentials: Credentials
  isGateway: boolean
  /** First key of the product, for the payload. */
  key?: string | undefined
}
export type Snippet = {
  id: 'mosquitto' | 'mqttx' | 'curl' | 'python' | 'node' | 'esp32'
  title: string
  code: string
  note?: 'needsAddress'
}

const topic = 'v1/devices/me/telemetry'

/** How a client names itself: by token, or by user, password and client id. */
type Login = {
  mosquitto: string
  mqttx: string
  python: string
  node: string
  arduino: [string, string]
  clientId: string | undefined
  httpToken: string | undefined
}

/** Inside double quotes of a shell. Tokens need none of it; user names and passwords are anybody's text. */
function shell(text: string): string {
  return `"${text.replace(/["$`\\]/g, '\\$&')}"`
}

/** A string literal of JavaScript in single quotes. */
function js(text: string): string {
  return `'${JSON.stringify(text).slice(1, -1).replaceAll("'", "\\'").replaceAll('\\"', '"')}'`
}

const reserved =
  /^(?:break|case|catch|class|const|continue|default|delete|do|else|export|extends|false|finally|for|function|i|if|import|in|let|new|null|return|static|super|switch|this|throw|true|try|typeof|var|void|while|with|yield|client|response)$/

/** The key of the payload; names that would need quoting somewhere give way to the usual one. */
export function payloadKey(key: string | undefined): string {
  return key !== undefined && /^[a-z][A-Za-z0-9_]{0,40}$/.test(key) && !reserved.test(key) ? key : 'temperature'
}

function loginOf(credentials: Credentials): Login {
  if (credentials.type === 'access_token') {
    const { token } = credentials
    return {
      mosquitto: `-u "${token}"`,
      mqttx: `-u "${token}"`,
      python: `client.username_pw_set("${token}")`,
      node: `{ username: '${token}' }`,
      arduino: [`"${token}"`, '""'],
      clientId: undefined,
      httpToken: token,
    }
  }
  if (credentials.type === 'x509') {
    const files = '--cafile server.crt --cert device.crt --key device.key'
    return { mosquitto: files, mqttx: '', python: '', node: '', arduino: ['""', '""'], clientId: undefined, httpToken: undefined }
  }
  const { clientId, userName = '', password = '' } = credentials
  const id = clientId ? ` -i ${shell(clientId)}` : ''
  const user = `-u ${shell(userName)} -P ${shell(password)}${id}`
  return {
    mosquitto: user,
    mqttx: user,
    python: `client.username_pw_set(${JSON.stringify(userName)}, ${JSON.stringify(password)})`,
    node: `{ ${clientId ? `clientId: ${js(clientId)}, ` : ''}username: ${js(userName)}, password: ${js(password)} }`,
    arduino: [JSON.stringify(userName), JSON.stringify(password)],
    clientId,
    httpToken: undefined,
  }
}

/** The blocks of the chosen transport. HTTP needs a token, so it has none for other credentials. */
export function renderSnippets(options: SnippetOptions): Snippet[] {
  const login = loginOf(options.credentials)
  if (options.transport !== 'mqtt') return httpSnippets(options, login)
  const snippets = mqttSnippets(options, login)
  // A certificate goes with files that each client names in its own way; one shows what is needed.
  return options.credentials.type === 'x509' ? snippets.filter(({ id }) => id === 'mosquitto') : snippets
}

function mqttSnippets({ host, mqttPort: port, system, isGateway, key: wanted }: SnippetOptions, login: Login): Snippet[] {
  const key = payloadKey(wanted)
  const payload = system === 'windows' ? `"{${key}:25.1}"` : `'{"${key}":25.1}'`
  const mosquitto = (to: string, body: string) => `mosquitto_pub -d -q 1 -h ${host} -p ${port} ${login.mosquitto} -t ${to} -m ${body}`
  const mqttx = (to: string, body: string) => `mqttx pub -h ${host} -p ${port} ${login.mqttx} -q 1 -t ${to} -m ${body}`
  const child = system === 'windows' ? `"{child-1:[{${key}:25.1}]}"` : `'{"child-1":[{"${key}":25.1}]}'`
  const withChild = (write: typeof mosquitto) =>
    [write(topic, payload), ...(isGateway ? [write('v1/gateway/telemetry', child)] : [])].join('\n')
  const snippets: Snippet[] = [
    { id: 'mosquitto', title: 'mosquitto', code: withChild(mosquitto) },
    { id: 'mqttx', title: 'MQTTX', code: withChild(mqttx) },
    { id: 'python', title: 'Python', code: pythonMqtt(host, port, login, key) },
    { id: 'node', title: 'Node.js', code: nodeMqtt(host, port, login, key) },
    { id: 'esp32', title: 'ESP32', code: esp32(host, port, login, key), ...(isLocal(host) ? { note: 'needsAddress' as const } : {}) },
  ]
  return snippets
}

function httpSnippets({ http, system, key: wanted }: SnippetOptions, { httpToken: token }: Login): Snippet[] {
  const key = payloadKey(wanted)
  if (token === undefined) return []
  const url = `${http}api/v1/${token}/telemetry`
  const curl =
    system === 'windows'
      ? `Invoke-RestMethod -Method Post -Uri "${url}" -ContentType "application/json" -Body '{"${key}":25.1}'`
      : `curl -sS -i -X POST "${url}" -H "Content-Type: application/json" -d '{"${key}":25.1}'`
  return [
    { id: 'curl', title: system === 'windows' ? 'PowerShell' : 'curl', code: curl },
    { id: 'python', title: 'Python', code: pythonHttp(url, key) },
    { id: 'node', title: 'Node.js', code: nodeHttp(url, key) },
  ]
}

function pythonMqtt(host: string, port: number, login: Login, key: string): string {
  const clientId = login.clientId ? `, client_id=${JSON.stringify(login.clientId)}` : ''
  return `# pip install "paho-mqtt>=2,<3"
import json, random, time
import paho.mqtt.client as mqtt

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2${clientId})
${login.python}
client.connect("${host}", ${port}, keepalive=60)
client.loop_start()
for i in range(10):
    value = round(20 + random.random() * 10, 1)
    info = client.publish("${topic}", json.dumps({"${key}": value}), qos=1)
    info.wait_for_publish(timeout=10)
    print("stored", value)
    time.sleep(1)
client.disconnect()
client.loop_stop()`
}

function pythonHttp(url: string, key: string): string {
  return `import json, random, time, urllib.request

for i in range(10):
    value = round(20 + random.random() * 10, 1)
    body = json.dumps({"${key}": value}).encode()
    request = urllib.request.Request("${url}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10):
        print("stored", value)
    time.sleep(1)`
}

function nodeMqtt(host: string, port: number, login: Login, key: string): string {
  return `// npm i mqtt, save as send.mjs
import mqtt from 'mqtt'

const client = await mqtt.connectAsync('mqtt://${host}:${port}', ${login.node})
for (let i = 0; i < 10; i++) {
  const ${key} = Math.round(200 + Math.random() * 100) / 10
  await client.publishAsync('${topic}', JSON.stringify({ ${key} }), { qos: 1 })
  console.log('stored', ${key})
  await new Promise((resolve) => setTimeout(resolve, 1000))
}
await client.endAsync()`
}

function nodeHttp(url: string, key: string): string {
  return `// save as send.mjs
for (let i = 0; i < 10; i++) {
  const ${key} = Math.round(200 + Math.random() * 100) / 10
  const response = await fetch('${url}', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ ${key} }),
  })
  if (!response.ok) throw new Error(await response.text())
  console.log('stored', ${key})
  await new Promise((resolve) => setTimeout(resolve, 1000))
}`
}

function esp32(host: string, port: number, login: Login, key: string): string {
  const clientId = login.clientId ? `\n  mqtt.setClientId(${JSON.stringify(login.clientId)});` : ''
  return `#include <WiFi.h>
#include <espMqttClient.h>

espMqttClient mqtt;
unsigned long last = 0, lastTry = 0;

void setup() {
  Serial.begin(115200);
  WiFi.begin("WIFI", "PASSWORD");
  while (WiFi.status() != WL_CONNECTED) delay(200);
  mqtt.setServer("${host}", ${port});${clientId}
  mqtt.setCredentials(${login.arduino[0]}, ${login.arduino[1]});
  mqtt.setKeepAlive(30);
}

void loop() {
  if (!mqtt.connected()) {
    if (millis() - lastTry > 5000) { lastTry = millis(); mqtt.connect(); }
    delay(50);
    return;
  }
  if (millis() - last > 5000) {
    last = millis();
    char body[64];
    snprintf(body, sizeof body, "{\\"${key}\\":%.1f}", 20 + random(100) / 10.0);
    mqtt.publish("${topic}", 1, false, body);
  }
}`
}

/** Whether only this very machine can reach the host. */
export function isLocal(host: string): boolean {
  return host === 'localhost' || host === '::1' || host === '[::1]' || host.startsWith('127.')
}

/** `••••` and the last four characters. */
export function maskToken(token: string): string {
  return `••••${token.slice(-4)}`
}
