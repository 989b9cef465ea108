// Schemas for `kubectl explain`: what is written here in our own words about the kinds people ask about most; the others have the envelope.
import type { Kind } from './kinds.ts';

interface Schema {
  type?: string;
  description?: string;
  properties?: Record<string, Schema>;
  items?: Schema;
  additionalProperties?: Schema;
  allOf?: { $ref: string }[];
  'x-kubernetes-group-version-kind'?: { group: string; version: string; kind: string }[];
  'x-kubernetes-preserve-unknown-fields'?: boolean;
}

const text = (description: string): Schema => ({ type: 'string', description });
const number = (description: string): Schema => ({ type: 'integer', description });
const flag = (description: string): Schema => ({ type: 'boolean', description });
const map = (description: string): Schema => ({
  type: 'object',
  description,
  additionalProperties: { type: 'string' },
});
const object = (description: string, properties: Record<string, Schema> = {}): Schema => ({
  type: 'object',
  description,
  properties,
  'x-kubernetes-preserve-unknown-fields': true,
});
const list = (description: string, items: Schema = { type: 'string' }): Schema => ({
  type: 'array',
  description,
  items,
});

const metadata = object('Name, labels and what else identifies the object.', {
  name: text('The name, unique among the objects of this kind in its namespace.'),
  generateName: text('A prefix for a name that the server makes up.'),
  namespace: text('The namespace the object lives in.'),
  labels: map('Keys and values that selectors match.'),
  annotations: map('Keys and values for tools; nothing selects by them.'),
  uid: text('The identity of this very object, never used again.'),
  resourceVersion: text('Changes with every write.'),
  generation: number('Counts changes of the desired state.'),
  creationTimestamp: text('When the object was made.'),
  deletionTimestamp: text('Set once the object is to be deleted.'),
  finalizers: list('What has to be done before the object may go.'),
  ownerReferences: list('The objects this one goes with.', object('An owner.')),
});

const probe = (description: string): Schema =>
  object(description, {
    exec: object('A command in the container; exit code 0 means success.', { command: list('The command.') }),
    httpGet: object('An HTTP GET; 200 to 399 means success.', {
      path: text('The path.'),
      port: text('Number or name.'),
      scheme: text('HTTP or HTTPS.'),
      host: text('Default: the pod.'),
    }),
    tcpSocket: object('A TCP connection that opens.', { port: text('Number or name.') }),
    grpc: object('A gRPC health check.', { port: number('The port.'), service: text('The service asked about.') }),
    initialDelaySeconds: number('Seconds before the first probe.'),
    periodSeconds: number('Seconds between probes.'),
    timeoutSeconds: number('Seconds a probe may take.'),
    successThreshold: number('Successes in a row that turn it good.'),
    failureThreshold: number('Failures in a row that turn it bad.'),
  });

const container = object('A container of the pod.', {
  name: text('The name, unique in the pod.'),
  image: text('The image to run.'),
  command: list('Replaces the entrypoint of the image.'),
  args: list('Replaces the arguments of the image.'),
  workingDir: text('The folder the process starts in.'),
  env: list(
    'Environment variables.',
    object('A variable.', {
      name: text('Its name.'),
      value: text('Its value.'),
      valueFrom: object('Where the value comes from.'),
    }),
  ),
  envFrom: list('Whole ConfigMaps or Secrets as variables.', object('A source.')),
  ports: list(
    'Ports the container listens on.',
    object('A port.', {
      name: text('Its name.'),
      containerPort: number('Its number.'),
      protocol: text('TCP, UDP or SCTP.'),
      hostPort: number('A port of the host that leads to it.'),
    }),
  ),
  resources: object('What is asked for and what is the most.', {
    requests: map('What the scheduler sets aside.'),
    limits: map('The most that may be used.'),
  }),
  volumeMounts: list(
    'Where volumes appear.',
    object('A mount.', {
      name: text('The volume.'),
      mountPath: text('Where it appears.'),
      readOnly: flag('Whether it may be written.'),
      subPath: text('A part of the volume.'),
    }),
  ),
  livenessProbe: probe('The container is restarted when this fails.'),
  readinessProbe: probe('The pod takes no traffic while this fails.'),
  startupProbe: probe('The other probes wait until this succeeds.'),
  lifecycle: object('What runs after the start and before the stop.'),
  imagePullPolicy: text('Always, IfNotPresent or Never.'),
  restartPolicy: text('For this container alone; Always makes an init container a sidecar.'),
  securityContext: object('User, capabilities and other security settings.'),
  stdin: flag('Keep standard input open.'),
  tty: flag('Give the container a terminal.'),
});

const podSpec = object('What the pod shall be.', {
  containers: list('The containers.', container),
  initContainers: list('Containers that run to their end, in order, before the others.', container),
  volumes: list('The volumes containers may mount.', object('A volume.', { name: text('Its name.') })),
  restartPolicy: text('Always, OnFailure or Never.'),
  terminationGracePeriodSeconds: number('Seconds between the stop signal and the kill.'),
  activeDeadlineSeconds: number('Seconds the pod may run at most.'),
  dnsPolicy: text('ClusterFirst, ClusterFirstWithHostNet, Default or None.'),
  nodeSelector: map('Labels the node must have.'),
  nodeName: text('The node the pod is bound to.'),
  serviceAccountName: text('The identity the pod has towards the API.'),
  hostNetwork: flag("Whether the pod shares the node's network."),
  securityContext: object('Security settings of the whole pod.'),
  affinity: object('Rules for where the pod may run.'),
  tolerations: list('Taints the pod bears.', object('A toleration.')),
  priorityClassName: text('How important the pod is.'),
  runtimeClassName: text('The way its containers are run.'),
});

const template = object('The pods to make.', { metadata, spec: podSpec });
const selector = object('Which pods belong to it.', {
  matchLabels: map('Labels they must have.'),
  matchExpressions: list('Further conditions.', object('A condition.')),
});

const specs: Readonly<Record<string, Record<string, Schema>>> = {
  Pod: {
    spec: podSpec,
    status: object('What the pod is.', {
      phase: text('Pending, Running, Succeeded or Failed.'),
      podIP: text('The address of the pod.'),
      conditions: list('What holds of it.', object('A condition.')),
      containerStatuses: list('Each container.', object('A status.')),
    }),
  },
  Deployment: {
    spec: object('What the deployment shall be.', {
      replicas: number('How many pods.'),
      selector,
      template,
      strategy: object('How pods are replaced.', {
        type: text('RollingUpdate or Recreate.'),
        rollingUpdate: object('How fast.', {
          maxSurge: text('How many more pods there may be.'),
          maxUnavailable: text('How many may be missing.'),
        }),
      }),
      minReadySeconds: number('Seconds a pod has to be ready to count.'),
      revisionHistoryLimit: number('How many old ReplicaSets are kept.'),
      paused: flag('Whether changes roll out.'),
    }),
    status: object('What the deployment is.'),
  },
  ReplicaSet: {
    spec: object('What the set shall be.', { replicas: number('How many pods.'), selector, template }),
    status: object('What it is.'),
  },
  Service: {
    spec: object('What the service shall be.', {
      type: text('ClusterIP, NodePort, LoadBalancer or ExternalName.'),
      selector: map('Labels of the pods behind it.'),
      clusterIP: text('Its address in the cluster; None for a headless one.'),
      ports: list(
        'Its ports.',
        object('A port.', {
          name: text('Its name.'),
          port: number('Where it listens.'),
          targetPort: text('The port of the pods, by number or name.'),
          nodePort: number('The port of every node that leads to it.'),
          protocol: text('TCP, UDP or SCTP.'),
        }),
      ),
      sessionAffinity: text('None or ClientIP.'),
      externalTrafficPolicy: text('Cluster or Local.'),
      internalTrafficPolicy: text('Cluster or Local.'),
    }),
    status: object('What it is.'),
  },
  ConfigMap: {
    data: map('Texts by key.'),
    binaryData: map('Bytes by key, in base64.'),
    immutable: flag('Whether it may change.'),
  },
  Secret: {
    data: map('Bytes by key, in base64.'),
    stringData: map('Texts by key, for writing.'),
    type: text('What the secret is for.'),
    immutable: flag('Whether it may change.'),
  },
  Node: {
    spec: object('What the node shall be.', {
      podCIDR: text('The range of its pods.'),
      unschedulable: flag('Whether new pods may come.'),
      taints: list('What pods have to tolerate.', object('A taint.')),
    }),
    status: object('What the node is.'),
  },
  Namespace: {
    spec: object('What the namespace shall be.'),
    status: object('What it is.', { phase: text('Active or Terminating.') }),
  },
};

/** The component schemas of a kind, by their name. */
export function schemaOf(kind: Kind): Record<string, Schema> {
  const { group, version, kind: name } = kind.resource;
  const full = `io.stevedore.${group || 'core'}.${version}.${name}`;
  const own = specs[name] ?? {
    spec: object(`What the ${name} shall be.`),
    ...(kind.hasStatus ? { status: object(`What the ${name} is.`) } : {}),
  };
  return {
    [full]: {
      type: 'object',
      description: `${name}, as this control plane knows it. The fields described are those most asked about; the API reference has all.`,
      properties: {
        apiVersion: text('The version of the API this object is written in.'),
        kind: text('What the object is.'),
        metadata,
        ...own,
      },
      'x-kubernetes-group-version-kind': [{ group, version, kind: name }],
      'x-kubernetes-preserve-unknown-fields': true,
    },
  };
}
