// What a GET of a probe or a hook asks for, and of whom.
import type { Container, HttpGetAction } from '../../kube/types/pod.ts';
import { hostPort } from './addresses.ts';
import { resolvePort } from './ports.ts';

export interface HttpTarget {
  readonly scheme: 'http' | 'https';
  readonly host: string;
  readonly port: number;
  /** With the query, encoded. */
  readonly path: string;
  /** As sent, without Host and Connection. */
  readonly headers: readonly (readonly [string, string])[];
  /** The Host header where it is not the address. */
  readonly hostHeader?: string | undefined;
}

export const urlOf = (target: HttpTarget): string =>
  `${target.scheme}://${hostPort(target.host, target.port)}${target.path}`;

function encodePath(path: string): string {
  const [before = ''] = path.split('#', 1);
  const rooted = before.startsWith('/') ? before : `/${before}`;
  // What is encoded stays so; spaces, controls and what is not ASCII may not stand in a request line.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to encode
  return rooted.toWellFormed().replace(/[\u0000-\u0020\u007f-\u{10ffff}"<>\\^`{|}]/gu, encodeURIComponent);
}

const tokenForm = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to refuse
const controls = /[\u0000-\u0008\u000a-\u001f\u007f]/;

/** What an httpGet action asks for. `purpose` names us in User-Agent (`kube-probe/1.36`). Throws an Error for ports and headers that are none. */
export function httpTarget(
  action: HttpGetAction,
  container: Container,
  podIp: string,
  purpose: 'probe' | 'lifecycle',
): HttpTarget {
  const headers: [string, string][] = [];
  let hostHeader: string | undefined;
  for (const { name, value } of action.httpHeaders ?? []) {
    if (!tokenForm.test(name)) throw new Error(`net/http: invalid header field name "${name}"`);
    if (controls.test(value)) throw new Error(`net/http: invalid header field value for "${name}"`);
    if (name.toLowerCase() === 'host') hostHeader ??= value;
    else headers.push([name, value]);
  }
  const has = (wanted: string): boolean => headers.some(([name]) => name.toLowerCase() === wanted);
  if (!has('user-agent')) headers.unshift(['User-Agent', `kube-${purpose}/1.36`]);
  if (!has('accept')) headers.push(['Accept', '*/*']);
  return {
    scheme: action.scheme?.toLowerCase() === 'https' ? 'https' : 'http',
    host: action.host || podIp,
    port: resolvePort(action.port, container),
    path: encodePath(action.path ?? ''),
    // An empty Accept or User-Agent means: send none.
    headers: headers.filter(([name, value]) => value !== '' || !['accept', 'user-agent'].includes(name.toLowerCase())),
    hostHeader,
  };
}

/** The request as it is sent. */
export function requestOf(target: HttpTarget): string {
  const lines = [
    `GET ${target.path} HTTP/1.1`,
    `Host: ${target.hostHeader || hostPort(target.host, target.port)}`,
    ...target.headers.map(([name, value]) => `${name}: ${value}`),
    'Connection: close',
  ];
  return `${lines.join('\r\n')}\r\n\r\n`;
}
