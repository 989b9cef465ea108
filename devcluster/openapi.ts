// The OpenAPI v3 documents kubectl asks for, one for each group and version: the operations of each kind, and for `kubectl explain` the fields
// people ask about most. What they mean the API reference says.
import { createHash } from 'node:crypto';
import { apiVersionOf, type Kind, kinds, verbsOf } from './kinds.ts';

type Schema = Record<string, unknown>;

// What stands in capitals is a kind; `[]` a list, `{}` a map of strings, `#` a number, `?` a boolean, else a string; `:` as described above.
const outline = `
metadata name generateName namespace uid labels{} annotations{} finalizers[] resourceVersion creationTimestamp deletionTimestamp
exec command[]
httpGet path port scheme host
tcpSocket port
grpc port# service
probe exec:exec httpGet:httpGet tcpSocket:tcpSocket grpc:grpc initialDelaySeconds# periodSeconds# timeoutSeconds# successThreshold#
  failureThreshold# terminationGracePeriodSeconds#
env name value
containerPort name containerPort# hostPort# protocol
resources requests{} limits{}
volumeMount name mountPath subPath readOnly?
container name image command[] args[] workingDir env[]:env ports[]:containerPort resources:resources volumeMounts[]:volumeMount
  livenessProbe:probe readinessProbe:probe startupProbe:probe imagePullPolicy restartPolicy stdin? tty?
volume name
podSpec containers[]:container initContainers[]:container volumes[]:volume restartPolicy terminationGracePeriodSeconds#
  activeDeadlineSeconds# dnsPolicy nodeSelector{} nodeName serviceAccountName hostNetwork? priorityClassName runtimeClassName
podStatus phase podIP hostIP startTime qosClass
template metadata:metadata spec:podSpec
rollingUpdate maxSurge maxUnavailable
strategy type rollingUpdate:rollingUpdate
selector matchLabels{}
deploymentSpec replicas# selector:selector template:template strategy:strategy minReadySeconds# revisionHistoryLimit# paused?
servicePort name port# targetPort nodePort# protocol
serviceSpec type selector{} clusterIP ports[]:servicePort sessionAffinity externalTrafficPolicy internalTrafficPolicy
nodeSpec podCIDR unschedulable?
Pod spec:podSpec status:podStatus
Deployment spec:deploymentSpec
ReplicaSet spec:deploymentSpec
Service spec:serviceSpec
Node spec:nodeSpec
ConfigMap data{} binaryData{} immutable?
Secret data{} stringData{} type immutable?
`;

const object = (properties: Schema): Schema => ({
  type: 'object',
  properties,
  'x-kubernetes-preserve-unknown-fields': true,
});

const described = new Map<string, Schema>();
for (const line of outline.trim().split(/\n(?=\S)/)) {
  const [name = '', ...fields] = line.split(/\s+/);
  described.set(name, Object.fromEntries(fields.map(fieldOf)));
}

function fieldOf(text: string): [string, Schema] {
  const [, name = '', mark = '', same] = /^(\w+)(\W*?)(?::(\w+))?$/.exec(text)!;
  const one = same ? object(described.get(same)!) : { type: { '#': 'integer', '?': 'boolean' }[mark] ?? 'string' };
  if (mark === '{}') return [name, { type: 'object', additionalProperties: one }];
  return [name, mark === '[]' ? { type: 'array', items: one } : one];
}

function componentOf(kind: Kind): Schema {
  const { group, version, kind: name } = kind.resource;
  const schema = object({
    apiVersion: { type: 'string' },
    kind: { type: 'string' },
    metadata: object(described.get('metadata')!),
    ...(described.get(name) ?? { spec: object({}) }),
  });
  return { ...schema, 'x-kubernetes-group-version-kind': [{ group, version, kind: name }] };
}

function pathsOf(kind: Kind): Schema {
  const { group, version, namespaced, plural, kind: name } = kind.resource;
  const base = `/${whereOf(kind)}${namespaced ? '/namespaces/{namespace}' : ''}/${plural}`;
  const schema = { type: 'string' };
  const parameters = ['dryRun', 'fieldManager', 'fieldValidation'].map((query) => ({
    name: query,
    in: 'query',
    schema,
  }));
  const action = (verb: string): Schema => ({
    parameters,
    responses: {},
    'x-kubernetes-action': verb,
    'x-kubernetes-group-version-kind': { group, version, kind: name },
  });
  if (!verbsOf(kind).includes('patch')) return { [base]: { post: action('post') } };
  // Strategic merge patches are taken but not named: kubectl then makes them from its own types, whose merge keys are complete.
  const types = ['application/merge-patch+json', 'application/json-patch+json', 'application/apply-patch+yaml'];
  const content = Object.fromEntries(types.map((type) => [type, { schema: { type: 'object' } }]));
  const [get, put, patch, remove] = ['get', 'put', 'patch', 'delete'].map(action);
  const single = { get, put, delete: remove, patch: { ...patch, requestBody: { content } } };
  return { [base]: { get: action('list'), post: action('post') }, [`${base}/{name}`]: single };
}

const info = { title: 'Kubernetes (stevedore devcluster)', version: 'v1.36.2' };
const whereOf = ({ resource }: Kind): string => `${resource.group ? 'apis' : 'api'}/${apiVersionOf(resource)}`;

const documents = new Map(
  [...Map.groupBy(kinds, whereOf)].map(([where, members]) => {
    const nameOf = ({ resource }: Kind): string => `io.stevedore.${where.replaceAll('/', '.')}.${resource.kind}`;
    const schemas = Object.fromEntries(members.map((kind) => [nameOf(kind), componentOf(kind)]));
    const paths = Object.assign({}, ...members.map(pathsOf)) as Schema;
    return [where, JSON.stringify({ openapi: '3.0.0', info, paths, components: { schemas } })];
  }),
);

/** The body of the answer; undefined where the path is none of OpenAPI's. */
export function openApi(path: string): string | undefined {
  if (path !== '/openapi/v3') return documents.get(path.replace('/openapi/v3/', ''));
  const paths = [...documents].map(([where, document]) => {
    const hash = createHash('sha256').update(document).digest('hex').toUpperCase();
    return [where, { serverRelativeURL: `/openapi/v3/${where}?hash=${hash}` }];
  });
  return JSON.stringify({ paths: Object.fromEntries(paths) });
}
