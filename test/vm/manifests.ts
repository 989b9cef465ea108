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

// With 0 a pod that heeds its eviction would have succeeded, and show no reason.
/** Takes the host's memory, quickly at first, then slowly, and stops a little below the threshold: a host that thrashes ends nothing in time. */
export const memoryHog = pod(
  'memory-hog',
  [
    // What the node counts as available: free memory and the page cache that is not in use.
    "left() { awk '/^MemFree|^Inactive.file/ { sum += $2 } END { print int(sum / 1024) }' /proc/meminfo; }; i=0; trap 'exit 143' TERM; while :; do l=$(left); if [ $l -gt 190 ]; then n=$(( (l - 180) / 2 + 1 )); elif [ $l -gt 88 ]; then n=4; else n=0; fi; [ $n = 0 ] || dd if=/dev/zero of=/memory/$i bs=1048576 count=$n 2>/dev/null; i=$((i + 1)); sleep 2; done",
  ],
  { volumeMounts: [{ name: 'memory', mountPath: '/memory' }] },
  { restartPolicy: 'Never', volumes: [{ name: 'memory', emptyDir: { medium: 'Memory' } }] },
);

/** Takes the host's disk, all but so many MiB. */
export const diskHog = (leaveMb: number): object =>
  pod(
    'disk-hog',
    [
      `trap 'exit 143' TERM; free=$(df -m /disk | awk 'END { print $(NF - 2) }'); fallocate -l $(( (free - ${leaveMb}) * 1048576 )) /disk/file && echo filled; sleep 100000 & wait`,
    ],
    { volumeMounts: [{ name: 'disk', mountPath: '/disk' }] },
    { restartPolicy: 'Never', volumes: [{ name: 'disk', emptyDir: {} }] },
  );

/** Writes into the host's /root/ends when it is told to end, and ends three seconds later, with 1: with 0 it would show no reason. */
export const ending = (name: string, priorityClassName?: string): object =>
  pod(
    name,
    [
      `trap 'echo "${name} told $(cut -d" " -f1 /proc/uptime)" >> /ends/log; sleep 3; echo "${name} ends $(cut -d" " -f1 /proc/uptime)" >> /ends/log; exit 1' TERM; sleep 100000 & wait`,
    ],
    { volumeMounts: [{ name: 'ends', mountPath: '/ends' }] },
    {
      terminationGracePeriodSeconds: 60,
      ...(priorityClassName === undefined ? {} : { priorityClassName }),
      volumes: [{ name: 'ends', hostPath: { path: '/root/ends', type: 'DirectoryOrCreate' } }],
    },
  );
