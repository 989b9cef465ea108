// The OpenAPI v3 documents kubectl asks for, one for each group and version: the operations of each kind, and for `kubectl explain` what is
// written here in our own words about the kinds people ask about most; the others have the envelope.
import { createHash } from 'node:crypto';
import { apiVersionOf, type Kind, kinds, verbsOf } from './kinds.ts';

type Schema = Record<string, unknown>;

// Two spaces deeper is inside. `[]` a list, `{}` a map of strings, `#` a number, `?` a boolean, else a string or an object; `@` the same as another.
const outline = `
metadata
  name The name, unique among the objects of this kind in its namespace.
  generateName A prefix for a name that the server makes up.
  namespace The namespace the object lives in.
  labels{} Keys and values that selectors match.
  annotations{} Keys and values for tools; nothing selects by them.
  finalizers[] What has to be done before the object may go.
probe
  exec A command in the container; exit code 0 means success.
    command[] The command.
  httpGet An HTTP GET; 200 to 399 means success.
    path The path.
    port Number or name.
    scheme HTTP or HTTPS.
  tcpSocket A TCP connection that opens.
    port Number or name.
  grpc A gRPC health check.
    port# The port.
  initialDelaySeconds# Seconds before the first probe.
  periodSeconds# Seconds between probes.
  timeoutSeconds# Seconds a probe may take.
  successThreshold# Successes in a row that turn it good.
  failureThreshold# Failures in a row that turn it bad.
container
  name The name, unique in the pod.
  image The image to run.
  command[] Replaces the entrypoint of the image.
  args[] Replaces the arguments of the image.
  workingDir The folder the process starts in.
  env[] Environment variables.
    name Its name.
    value Its value.
  ports[] Ports the container listens on.
    name Its name.
    containerPort# Its number.
    protocol TCP, UDP or SCTP.
    hostPort# A port of the host that leads to it.
  resources What is asked for and what is the most.
    requests{} What the scheduler sets aside.
    limits{} The most that may be used.
  volumeMounts[] Where volumes appear.
    name The volume.
    mountPath Where it appears.
    readOnly? Whether it may not be written.
  livenessProbe@probe The container is restarted when this fails.
  readinessProbe@probe The pod takes no traffic while this fails.
  startupProbe@probe The other probes wait until this succeeds.
  imagePullPolicy Always, IfNotPresent or Never.
podSpec
  containers[]@container The containers.
  initContainers[]@container Containers that run to their end, in order, before the others.
  volumes[] The volumes containers may mount.
    name Its name.
  restartPolicy Always, OnFailure or Never.
  terminationGracePeriodSeconds# Seconds between the stop signal and the kill.
  nodeSelector{} Labels the node must have.
  nodeName The node the pod is bound to.
  serviceAccountName The identity the pod has towards the API.
  hostNetwork? Whether the pod shares the node's network.
template
  metadata@metadata What the pods are called and labelled.
  spec@podSpec What the pods shall be.
Pod
  spec@podSpec What the pod shall be.
  status What the pod is.
Deployment
  spec What the deployment shall be.
    replicas# How many pods.
    template@template The pods to make.
    strategy How pods are replaced.
      type RollingUpdate or Recreate.
    paused? Whether changes wait.
  status What the deployment is.
ReplicaSet
  spec What the set shall be.
    replicas# How many pods.
    template@template The pods to make.
Service
  spec What the service shall be.
    type ClusterIP, NodePort, LoadBalancer or ExternalName.
    selector{} Labels of the pods behind it.
    clusterIP Its address in the cluster; None for a headless one.
    ports[] Its ports.
      port# Where it listens.
      targetPort The port of the pods, by number or name.
      nodePort# The port of every node that leads to it.
ConfigMap
  data{} Texts by key.
Secret
  data{} Bytes by key, in base64.
`;

const object = (description: string, properties: Schema): Schema => ({
  type: 'object',
  description,
  properties,
  'x-kubernetes-preserve-unknown-fields': true,
});

/** The properties an outline's lines describe, by the name they stand under. */
function parseOutline(text: string): Map<string, Schema> {
  const named = new Map<string, Schema>();
  const path: Schema[] = [];
  for (const line of text.trim().split('\n')) {
    const [, indent = '', name = '', mark = '', same, description = ''] =
      /^( *)(\w+)(\[\]|\{\}|#|\?)?(?:@(\w+))? ?(.*)$/.exec(line)!;
    const depth = indent.length / 2;
    const inside: Schema = same ? named.get(same)! : {};
    path.splice(depth, path.length, inside);
    if (depth === 0) named.set(name, inside);
    else path[depth - 1]![name] = schemaOf(mark, description, inside);
  }
  return named;
}

const scalars: Readonly<Record<string, string>> = { '#': 'integer', '?': 'boolean' };

// What is inside comes with later lines, so whether there is any is asked only when the schema is written.
function schemaOf(mark: string, description: string, inside: Schema): Schema {
  const plain = (): boolean => Object.keys(inside).length === 0;
  if (mark === '{}') return { type: 'object', description, additionalProperties: { type: 'string' } };
  if (scalars[mark]) return { type: scalars[mark], description };
  const itself = { toJSON: () => (plain() ? { type: 'string', description } : object(description, inside)) };
  return mark === '[]' ? { type: 'array', description, items: itself } : itself;
}

const described = parseOutline(outline);

function componentOf(kind: Kind): Schema {
  const { group, version, kind: name } = kind.resource;
  const text = (description: string): Schema => ({ type: 'string', description });
  const properties = {
    apiVersion: text('The version of the API this object is written in.'),
    kind: text('What the object is.'),
    metadata: object('Name, labels and what else identifies the object.', described.get('metadata')!),
    ...(described.get(name) ?? { spec: object(`What the ${name} shall be.`, {}) }),
  };
  const words = `${name}, as this control plane knows it: the fields most asked about; the API reference has all.`;
  return { ...object(words, properties), 'x-kubernetes-group-version-kind': [{ group, version, kind: name }] };
}

function pathsOf(kind: Kind): Schema {
  const { group, version, namespaced, plural, kind: name } = kind.resource;
  const base = `${group ? '/apis/' : '/api/'}${apiVersionOf(kind.resource)}${namespaced ? '/namespaces/{namespace}' : ''}/${plural}`;
  const parameters = ['dryRun', 'fieldManager', 'fieldValidation'].map((query) => ({
    name: query,
    in: 'query',
    schema: { type: 'string' },
  }));
  const action = (verb: string, more: object = {}): Schema => ({
    parameters,
    responses: {},
    'x-kubernetes-action': verb,
    'x-kubernetes-group-version-kind': { group, version, kind: name },
    ...more,
  });
  if (!verbsOf(kind).includes('patch')) return { [base]: { post: action('post') } };
  // Strategic merge patches are taken but not named: kubectl then makes them from its own types, whose merge keys are complete.
  const types = ['application/merge-patch+json', 'application/json-patch+json', 'application/apply-patch+yaml'];
  const content = Object.fromEntries(types.map((type) => [type, { schema: { type: 'object' } }]));
  return {
    [base]: { get: action('list'), post: action('post') },
    [`${base}/{name}`]: {
      get: action('get'),
      put: action('put'),
      delete: action('delete'),
      patch: action('patch', { requestBody: { content } }),
    },
  };
}

const info = { title: 'Kubernetes (stevedore devcluster)', version: 'v1.36.2' };
const whereOf = ({ resource }: Kind): string => `${resource.group ? 'apis' : 'api'}/${apiVersionOf(resource)}`;
const documents = new Map<string, string>();

function documentOf(where: string): string | undefined {
  const found = kinds.filter((kind) => whereOf(kind) === where);
  if (found.length === 0) return undefined;
  const named = found.map((kind) => [
    `io.stevedore.${where.replaceAll('/', '.')}.${kind.resource.kind}`,
    componentOf(kind),
  ]);
  const paths = Object.assign({}, ...found.map(pathsOf)) as Schema;
  const schemas = Object.fromEntries(named) as Schema;
  const document = documents.get(where) ?? JSON.stringify({ openapi: '3.0.0', info, paths, components: { schemas } });
  documents.set(where, document);
  return document;
}

/** The body of the answer; undefined where the path is none of OpenAPI's. */
export function openApi(path: string): string | undefined {
  if (path !== '/openapi/v3') return path.startsWith('/openapi/v3/') ? documentOf(path.slice(12)) : undefined;
  const paths = [...new Set(kinds.map(whereOf))].map((where) => {
    const hash = createHash('sha256').update(documentOf(where)!).digest('hex').toUpperCase();
    return [where, { serverRelativeURL: `/openapi/v3/${where}?hash=${hash}` }];
  });
  return JSON.stringify({ paths: Object.fromEntries(paths) });
}
