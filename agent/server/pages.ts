// The plain pages: /pods, /runningpods, /configz, /healthz, /checkpoint and /run.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../lib/clock.ts';
import { describeError } from '../../lib/log.ts';
import { RuntimeError } from '../../cri/errors.ts';
import type { Runtime } from '../../cri/runtime.ts';
import { containerSpec, type PodDirectory } from './directory.ts';
import { HttpError, type PageCall, type Route, sendJson, sendText } from './routes.ts';
import { findContainer, findPod } from './streams.ts';

/** One check of /healthz. */
export interface HealthCheck {
  readonly name: string;
  /** Why it fails; undefined where it passes. */
  failing(): string | undefined;
}

export interface PagesDeps {
  readonly clock: Clock;
  readonly pods: PodDirectory;
  readonly runtime: Pick<Runtime, 'execSync' | 'listSandboxes' | 'listContainers' | 'checkpointContainer'>;
  /** The configuration in force, a KubeletConfiguration. */
  configz(): unknown;
}

export interface PagesOptions {
  /** Where checkpoints go: `/var/lib/kubelet/checkpoints`. */
  readonly checkpointFolder: string;
}

/** The text of /healthz and its status: `ok`, or the list of checks where one fails or `verbose` asks for it. */
export function healthzPage(checks: readonly HealthCheck[], verbose: boolean): { status: number; text: string } {
  const results = checks.map((check) => ({ name: check.name, why: check.failing() }));
  const bad = results.some((result) => result.why !== undefined);
  if (!bad && !verbose) return { status: 200, text: 'ok' };
  const lines = results.map(({ name, why }) => (why === undefined ? `[+]${name} ok` : `[-]${name} failed: ${why}`));
  const last = bad ? 'healthz check failed' : 'healthz check passed';
  return { status: bad ? 500 : 200, text: `${[...lines, last].join('\n')}\n` };
}

/** ping and log are Kubernetes' own; they pass as long as anybody answers. */
const builtIn: readonly HealthCheck[] = [
  { name: 'ping', failing: () => undefined },
  { name: 'log', failing: () => undefined },
];

export function healthz(
  checks: readonly HealthCheck[],
  name: string,
  query: URLSearchParams,
): { status: number; text: string } {
  const all = [...builtIn.filter(({ name: known }) => !checks.some((check) => check.name === known)), ...checks];
  const excluded = query.getAll('exclude');
  if (name === '')
    return healthzPage(
      all.filter((check) => !excluded.includes(check.name)),
      query.has('verbose'),
    );
  const one = all.find((check) => check.name === name);
  if (!one) return { status: 404, text: '404: Page Not Found' };
  const why = one.failing();
  return why === undefined ? { status: 200, text: 'ok' } : { status: 500, text: `internal server error: ${why}\n` };
}

const podList = (items: readonly unknown[]): unknown => ({ kind: 'PodList', apiVersion: 'v1', metadata: {}, items });

export const podsRoute = (pods: PodDirectory): Route => ({
  kind: 'page',
  methods: ['GET'],
  pattern: '/pods',
  serve: ({ response }) => sendJson(response, podList(pods.pods())),
});

export const healthRoute = (checks: readonly HealthCheck[]): Route => ({
  kind: 'page',
  methods: ['GET', 'HEAD'],
  pattern: '/healthz/{check*}',
  serve: ({ at, params, response }) => {
    const { status, text } = healthz(checks, params.check ?? '', at.query);
    sendText(response, status, text);
  },
});

export function pageRoutes(deps: PagesDeps, options: PagesOptions): Route[] {
  const { clock, pods, runtime } = deps;

  const runningPods = async ({ response, signal }: PageCall): Promise<void> => {
    const [sandboxes, containers] = await Promise.all([
      runtime.listSandboxes({}, { signal }),
      runtime.listContainers({}, { signal }),
    ]);
    const items = sandboxes
      .filter((sandbox) => sandbox.state === 'ready' && sandbox.labels['io.kubernetes.pod.uid'])
      .map((sandbox) => ({
        metadata: {
          name: sandbox.metadata.name,
          namespace: sandbox.metadata.namespace,
          uid: sandbox.metadata.uid,
          creationTimestamp: null,
        },
        spec: {
          containers: containers
            .filter((container) => container.sandboxId === sandbox.id && container.state === 'running')
            .map((container) => ({ name: container.metadata.name, image: container.image, resources: {} })),
        },
        status: {},
      }));
    sendJson(response, podList(items));
  };

  const run = async ({ at, params, response, signal }: PageCall): Promise<void> => {
    const pod = findPod(pods, params);
    const container = findContainer(pods, pod, params.container ?? '');
    const command = (at.query.get('cmd') ?? '').split(' ');
    try {
      const result = await runtime.execSync(container.id, command, { signal });
      const output = Buffer.concat([result.stdout, result.stderr]);
      if (result.exitCode !== 0)
        throw new HttpError(
          500,
          `command '${command.join(' ')}' exited with ${result.exitCode}: ${output.toString('utf8')}`,
        );
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': output.length });
      response.end(output);
    } catch (error) {
      if (error instanceof RuntimeError) throw new HttpError(500, error.detail, {}, error);
      throw error;
    }
  };

  const checkpoint = async ({ at, params, response }: PageCall): Promise<void> => {
    const pod = findPod(pods, params);
    const name = params.container ?? '';
    if (!containerSpec(pod, name)) throw new HttpError(404, `container ${name} does not exist`);
    const timeout = at.query.getAll('timeout').at(-1);
    if (timeout !== undefined && !/^-?\d{1,9}$/.test(timeout))
      throw new HttpError(404, 'cannot parse value of timeout parameter');
    const where = `${pod.metadata.namespace}/${pod.metadata.name}/${name}`;
    const time = new Date(clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
    const file = `checkpoint-${pod.metadata.name}_${pod.metadata.namespace}-${name}-${time}.tar`;
    const location = join(options.checkpointFolder, file);
    try {
      const container = findContainer(pods, pod, name);
      await mkdir(options.checkpointFolder, { recursive: true, mode: 0o700 });
      const seconds = Number(timeout ?? 0);
      await runtime.checkpointContainer(container.id, location, seconds > 0 ? { timeoutMs: seconds * 1000 } : {});
    } catch (error) {
      throw new HttpError(500, `checkpointing of ${where} failed (${describeError(error)})`, {}, error);
    }
    sendJson(response, { items: [location] });
  };

  return [
    { kind: 'page', methods: ['GET'], pattern: '/runningpods', serve: runningPods },
    {
      kind: 'page',
      methods: ['GET'],
      pattern: '/configz',
      serve: ({ response }) => sendJson(response, { kubeletconfig: deps.configz() }),
    },
    { kind: 'page', methods: ['POST'], pattern: '/run/{namespace}/{pod}/{container}', serve: run },
    { kind: 'page', methods: ['POST'], pattern: '/run/{namespace}/{pod}/{uid}/{container}', serve: run },
    { kind: 'page', methods: ['POST'], pattern: '/checkpoint/{namespace}/{pod}/{container}', serve: checkpoint },
  ];
}

/** The heartbeat of a loop that must not stand still: fails where it did not beat for `limitMs`. */
export function heartbeat(clock: Clock, name: string, limitMs: number): HealthCheck & { beat(): void } {
  let lastMs = clock.monotonicMs();
  return {
    name,
    beat: () => {
      lastMs = clock.monotonicMs();
    },
    failing: () => {
      const silentMs = clock.monotonicMs() - lastMs;
      return silentMs > limitMs ? `no sign of life for ${Math.round(silentMs / 1000)} s` : undefined;
    },
  };
}
