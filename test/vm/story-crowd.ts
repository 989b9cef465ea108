// A hundred pods with a readiness probe: how long they take, and how long a daemon that is started again takes to have them all, and to have looked at each once.
import { demoImageName } from '../../cri/local-images.ts';
import { expect, type Report } from './report.ts';
import { adoption, unnoticed } from './story-life.ts';
import type { World } from './world.ts';

const minutes = 60_000;
const size = 100;

const deployment = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'crowd' },
  spec: {
    replicas: size,
    selector: { matchLabels: { app: 'crowd' } },
    template: {
      metadata: { labels: { app: 'crowd' } },
      spec: {
        terminationGracePeriodSeconds: 1,
        containers: [
          {
            name: 'web',
            image: demoImageName,
            imagePullPolicy: 'IfNotPresent',
            readinessProbe: { httpGet: { path: '/healthz', port: 8080 }, periodSeconds: 5, timeoutSeconds: 5 },
            resources: { requests: { cpu: '1m', memory: '4Mi' } },
          },
        ],
      },
    },
  },
};

export async function crowdStart({ apply, kubectl, until }: World): Promise<string> {
  const startedMs = performance.now();
  await apply(deployment);
  await until(
    `${size} pods are ready`,
    10 * minutes,
    () => kubectl('get', 'deployment', 'crowd', '-o', 'jsonpath={.status.readyReplicas}'),
    (answer) => answer === String(size),
  );
  return `${size} ready after ${Math.round((performance.now() - startedMs) / 1000)} s`;
}

const restart = (world: World): Promise<string> =>
  unnoticed(world, async () => {
    const seen: string[] = [];
    for (let times = 0; times < 3; times++) {
      const [pods, readyMs, adoptedMs, workedMs] = (await world.machine.run(adoption, { timeoutMs: 5 * minutes }))
        .trim()
        .split(' ');
      expect(Number(pods) >= size, `the daemon showed ${pods} ready pods`);
      seen.push(
        `${Number(readyMs) / 1000} s to READY=1, all ${pods} pods ${Number(adoptedMs) / 1000} s later, the daemon's processor time till then ${Number(workedMs) / 1000} s`,
      );
    }
    return seen.join('; ');
  });

const remove = async ({ kubectl, until }: World): Promise<string> => {
  const startedMs = performance.now();
  await kubectl('delete', 'deployment', 'crowd', '--wait=false');
  await until(
    'they are gone',
    10 * minutes,
    () => kubectl('get', 'pods', '-l', 'app=crowd', '-o', 'name'),
    (answer) => answer.trim() === '',
  );
  return `gone after ${Math.round((performance.now() - startedMs) / 1000)} s`;
};

export async function crowd(world: World, report: Report): Promise<void> {
  await report.step(`${size} pods with a readiness probe`, () => crowdStart(world));
  await report.step(`systemctl restart with ${size} pods`, () => restart(world));
  await report.step(`${size} pods deleted`, () => remove(world));
}
