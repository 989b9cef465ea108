// What runs on the machine: all of the demo image, which it has already.
import { demoImageName } from '../../cri/local-images.ts';

const container = {
  name: 'web',
  image: demoImageName,
  imagePullPolicy: 'IfNotPresent',
  ports: [{ containerPort: 8080 }],
};

/** Two pods of class Burstable behind a ClusterIP and a NodePort. */
export const web = {
  apiVersion: 'v1',
  kind: 'List',
  items: [
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web' },
      spec: {
        replicas: 2,
        selector: { matchLabels: { app: 'web' } },
        template: {
          metadata: { labels: { app: 'web' } },
          spec: {
            terminationGracePeriodSeconds: 2,
            containers: [
              {
                ...container,
                readinessProbe: { httpGet: { path: '/healthz', port: 8080 }, periodSeconds: 2, timeoutSeconds: 5 },
                resources: { requests: { cpu: '50m', memory: '32Mi' }, limits: { cpu: '500m', memory: '64Mi' } },
              },
            ],
          },
        },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web' },
      spec: { type: 'NodePort', selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }] },
    },
  ],
};

const pod = (name: string, command: readonly string[], more: object = {}, spec: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name },
  spec: {
    terminationGracePeriodSeconds: 1,
    containers: [{ ...container, ports: [], command: ['/bin/sh', '-c', ...command], ...more }],
    ...spec,
  },
});

/** Class Guaranteed. */
export const guaranteed = pod('guaranteed', ['trap "exit 0" TERM; sleep 100000 & wait'], {
  resources: { limits: { cpu: '250m', memory: '48Mi' } },
});

export const bestEffort = pod('best-effort', ['trap "exit 0" TERM; sleep 100000 & wait']);

/** Asks for more memory than it may have. */
export const greedy = pod(
  'greedy',
  ['x=a; while :; do x=$x$x; done'],
  { resources: { limits: { memory: '24Mi' } } },
  { restartPolicy: 'Never' },
);

/** Writes below /tmp, which the named profile forbids; `Unconfined` may. */
export const armored = (name: string, appArmorProfile: object): object =>
  pod(
    name,
    ['cat /proc/self/attr/current; echo data > /tmp/file && echo written || echo denied'],
    { securityContext: { appArmorProfile } },
    { restartPolicy: 'Never' },
  );
