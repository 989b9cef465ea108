// /statusz and /flagz, which every component of Kubernetes serves: what runs there and how it was told to, as text, or as an object of
// config.k8s.io for who asks for it by `Accept: application/json;v=v1beta1;g=config.k8s.io;as=Statusz`.
import { stringify } from 'yaml';
import type { Clock } from '../lib/clock.ts';

export type ZPage = 'statusz' | 'flagz';

export interface ZPagesDeps {
  readonly clock: Clock;
  /** The flags in force, by name. */
  flags(): Readonly<Record<string, string>>;
}

export interface ZPagesOptions {
  /** `kubelet`, `kube-proxy`. */
  readonly component: string;
  readonly version: string;
  /** When the process began, in milliseconds of the epoch. */
  readonly startedMs: number;
  /** What else the server has; a path is told by its first segment. */
  readonly paths: readonly string[];
}

export interface ZAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export type ZPages = Readonly<Record<ZPage, (accept: string | undefined) => ZAnswer>>;

type Version = 'v1beta1' | 'v1alpha1';
type Wish = 'text' | { readonly as: 'json' | 'yaml'; readonly version: Version };

const kinds: Readonly<Record<ZPage, string>> = { statusz: 'Statusz', flagz: 'Flagz' };
const types = { json: 'application/json', yaml: 'application/yaml', text: 'text/plain' } as const;

/** As the API server negotiates: clauses by weight, the structured types only with a kind, text only without. Undefined: nothing that can be had. */
function wishOf(accept: string | undefined, page: ZPage): Wish | undefined {
  if (accept === undefined || accept.trim() === '') return 'text';
  const clauses = accept.split(',').map((clause) => {
    const [type = '', ...rest] = clause.split(';').map((part) => part.trim());
    const parameters = new Map(
      rest.map((part) => [part.split('=', 1)[0]!, part.slice(part.indexOf('=') + 1)] as const),
    );
    return { type, parameters, weight: Number(parameters.get('q') ?? 1) };
  });
  for (const { type, parameters } of clauses.sort((a, b) => b.weight - a.weight)) {
    const matches = (each: string): boolean =>
      type === each || type === '*/*' || type === `${each.slice(0, each.indexOf('/'))}/*`;
    const [group, kind, version] = ['g', 'as', 'v'].map((name) => parameters.get(name));
    if (group === undefined && kind === undefined && version === undefined) {
      if (matches(types.text)) return 'text';
      continue;
    }
    if (group !== 'config.k8s.io' || kind !== kinds[page] || (version !== 'v1beta1' && version !== 'v1alpha1'))
      continue;
    if (matches(types.json)) return { as: 'json', version };
    if (matches(types.yaml)) return { as: 'yaml', version };
  }
  return undefined;
}

const days = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** As date(1) has it: `Sun Nov 22 03:54:50 UTC 2026`. */
function unixDate(ms: number): string {
  const date = new Date(ms);
  const time = date.toISOString().slice(11, 19);
  const day = String(date.getUTCDate()).padStart(2);
  return `${days[date.getUTCDay()]} ${months[date.getUTCMonth()]} ${day} ${time} UTC ${date.getUTCFullYear()}`;
}

const twoDigits = (value: number): string => String(Math.floor(value)).padStart(2, '0');

const plain = (page: ZPage, component: string, lines: readonly string[]): string =>
  [
    '',
    `${component} ${page}`,
    'Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.',
    ...lines,
    '',
  ].join('\n');

function notAcceptable(): ZAnswer {
  const message = `only the following media types are accepted: ${Object.values(types).join(', ')}`;
  return {
    status: 406,
    headers: { 'content-type': types.json },
    body: JSON.stringify(
      {
        kind: 'Status',
        apiVersion: 'v1',
        metadata: {},
        status: 'Failure',
        message,
        reason: 'NotAcceptable',
        code: 406,
      },
      undefined,
      2,
    ),
  };
}

export function createZPages(deps: ZPagesDeps, options: ZPagesOptions): ZPages {
  const { component, version, startedMs } = options;
  const paths = [
    ...new Set(options.paths.map((path) => `/${path.split('/')[1] ?? ''}`).filter((path) => path !== '/')),
  ].sort();
  const upSeconds = (): number => Math.max(0, Math.floor((deps.clock.now() - startedMs) / 1000));

  const texts: Readonly<Record<ZPage, () => string>> = {
    statusz() {
      const up = upSeconds();
      return plain('statusz', component, [
        '',
        `Started: ${unixDate(startedMs)}`,
        `Up: ${Math.floor(up / 3600)} hr ${twoDigits((up / 60) % 60)} min ${twoDigits(up % 60)} sec`,
        `Node version: ${process.version}`,
        `Binary version: ${version}`,
        '',
        `Paths: ${paths.join(' ')}`,
      ]);
    },
    flagz() {
      const names = Object.entries(deps.flags()).sort(([a], [b]) => (a < b ? -1 : 1));
      return plain(
        'flagz',
        component,
        names.map(([name, value]) => `${name}=${value}`),
      );
    },
  };
  const objects: Readonly<Record<ZPage, () => object>> = {
    statusz: () => ({
      startTime: new Date(startedMs).toISOString().replace(/\.\d+Z$/, 'Z'),
      uptimeSeconds: upSeconds(),
      // There is no Go in it; the field is not optional in clients' types.
      goVersion: '',
      binaryVersion: version,
      paths,
    }),
    flagz: () => ({ flags: deps.flags() }),
  };

  const answer =
    (page: ZPage) =>
    (accept: string | undefined): ZAnswer => {
      const wish = wishOf(accept, page);
      if (wish === undefined) return notAcceptable();
      if (wish === 'text')
        return { status: 200, headers: { 'content-type': `${types.text}; charset=utf-8` }, body: texts[page]() };
      const object = {
        kind: kinds[page],
        apiVersion: `config.k8s.io/${wish.version}`,
        metadata: { name: component },
        ...objects[page](),
      };
      const old = `299 - "This version of the ${page} endpoint is deprecated. Please use a newer version."`;
      return {
        status: 200,
        headers: { 'content-type': types[wish.as], ...(wish.version === 'v1alpha1' ? { warning: old } : {}) },
        body: wish.as === 'json' ? `${JSON.stringify(object)}\n` : stringify(object, { sortMapEntries: true }),
      };
    };
  return { statusz: answer('statusz'), flagz: answer('flagz') };
}
