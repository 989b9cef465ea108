// Reads the protobuf bodies kubectl sends for what it makes with its own types (create, auth, token, drain). It knows the messages named here
// and no more: a field it does not know is refused rather than lost. Answers are JSON always.
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { unsupportedType } from './failure.ts';
import { timestamp } from './names.ts';

// s string, i integer, b bool, T time, I int-or-string, M map of strings, D map of bytes, else a message; `*` repeated, `!` kept when zero.
const messages = `
TypeMeta: 1 apiVersion s, 2 kind s
Time: 1 seconds i, 2 nanos i
IntOrString: 1 type i, 2 intVal i!, 3 strVal s
ObjectMeta: 1 name s, 2 generateName s, 3 namespace s, 4 selfLink s, 5 uid s, 6 resourceVersion s, 7 generation i, 8 creationTimestamp T,
  9 deletionTimestamp T, 10 deletionGracePeriodSeconds i, 11 labels M, 12 annotations M, 13 ownerReferences OwnerReference*,
  14 finalizers s*
OwnerReference: 1 kind s, 3 name s, 4 uid s, 5 apiVersion s, 6 controller b, 7 blockOwnerDeletion b
LabelSelector: 1 matchLabels M, 2 matchExpressions LabelSelectorRequirement*
LabelSelectorRequirement: 1 key s, 2 operator s, 3 values s*
DeleteOptions: 1 gracePeriodSeconds i!, 2 preconditions Preconditions, 3 orphanDependents b!, 4 propagationPolicy s, 5 dryRun s*
Preconditions: 1 uid s, 2 resourceVersion s
ConfigMap: 1 metadata ObjectMeta, 2 data M, 3 binaryData D, 4 immutable b!
Secret: 1 metadata ObjectMeta, 2 data D, 3 type s, 4 stringData M, 5 immutable b!
Namespace: 1 metadata ObjectMeta, 2 spec NamespaceSpec
NamespaceSpec: 1 finalizers s*
ServiceAccount: 1 metadata ObjectMeta, 2 secrets ObjectReference*, 3 imagePullSecrets LocalObjectReference*,
  4 automountServiceAccountToken b!
ObjectReference: 1 kind s, 2 namespace s, 3 name s, 4 uid s, 5 apiVersion s, 6 resourceVersion s, 7 fieldPath s
LocalObjectReference: 1 name s
Service: 1 metadata ObjectMeta, 2 spec ServiceSpec
ServiceSpec: 1 ports ServicePort*, 2 selector M, 3 clusterIP s, 4 type s, 5 externalIPs s*, 7 sessionAffinity s, 8 loadBalancerIP s,
  9 loadBalancerSourceRanges s*, 10 externalName s, 11 externalTrafficPolicy s, 12 healthCheckNodePort i, 13 publishNotReadyAddresses b,
  17 ipFamilyPolicy s, 18 clusterIPs s*, 19 ipFamilies s*, 20 allocateLoadBalancerNodePorts b!, 21 loadBalancerClass s,
  22 internalTrafficPolicy s, 23 trafficDistribution s
ServicePort: 1 name s, 2 protocol s, 3 port i, 4 targetPort I, 5 nodePort i, 6 appProtocol s
Deployment: 1 metadata ObjectMeta, 2 spec DeploymentSpec
DeploymentSpec: 1 replicas i!, 2 selector LabelSelector, 3 template PodTemplateSpec, 4 strategy DeploymentStrategy, 5 minReadySeconds i,
  6 revisionHistoryLimit i!, 7 paused b, 9 progressDeadlineSeconds i!
DeploymentStrategy: 1 type s, 2 rollingUpdate RollingUpdateDeployment
RollingUpdateDeployment: 1 maxUnavailable I, 2 maxSurge I
PodTemplateSpec: 1 metadata ObjectMeta, 2 spec PodSpec
PodSpec: 2 containers Container*, 3 restartPolicy s, 4 terminationGracePeriodSeconds i!, 6 dnsPolicy s, 7 nodeSelector M,
  8 serviceAccountName s, 9 serviceAccount s, 10 nodeName s, 11 hostNetwork b, 12 hostPID b, 13 hostIPC b, 16 hostname s, 17 subdomain s,
  19 schedulerName s
Container: 1 name s, 2 image s, 3 command s*, 4 args s*, 5 workingDir s, 6 ports ContainerPort*, 7 env EnvVar*,
  13 terminationMessagePath s, 14 imagePullPolicy s, 16 stdin b, 17 stdinOnce b, 18 tty b, 20 terminationMessagePolicy s
ContainerPort: 1 name s, 2 hostPort i, 3 containerPort i, 4 protocol s, 5 hostIP s
EnvVar: 1 name s, 2 value s
Role: 1 metadata ObjectMeta, 2 rules PolicyRule*
ClusterRole: 1 metadata ObjectMeta, 2 rules PolicyRule*
RoleBinding: 1 metadata ObjectMeta, 2 subjects Subject*, 3 roleRef RoleRef
ClusterRoleBinding: 1 metadata ObjectMeta, 2 subjects Subject*, 3 roleRef RoleRef
PolicyRule: 1 verbs s*, 2 apiGroups s*, 3 resources s*, 4 resourceNames s*, 5 nonResourceURLs s*
RoleRef: 1 apiGroup s, 2 kind s, 3 name s
Subject: 1 kind s, 2 apiGroup s, 3 name s, 4 namespace s
TokenRequest: 1 metadata ObjectMeta, 2 spec TokenRequestSpec
TokenRequestSpec: 1 audiences s*, 3 boundObjectRef BoundObjectReference, 4 expirationSeconds i
BoundObjectReference: 1 kind s, 2 apiVersion s, 3 name s, 4 uid s
SelfSubjectReview: 1 metadata ObjectMeta
SelfSubjectAccessReview: 1 metadata ObjectMeta, 2 spec AccessSpec
SubjectAccessReview: 1 metadata ObjectMeta, 2 spec AccessSpec
LocalSubjectAccessReview: 1 metadata ObjectMeta, 2 spec AccessSpec
AccessSpec: 1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes NonResourceAttributes, 3 user s, 4 groups s*, 6 uid s
ResourceAttributes: 1 namespace s, 2 verb s, 3 group s, 4 version s, 5 resource s, 6 subresource s, 7 name s
NonResourceAttributes: 1 path s, 2 verb s
Eviction: 1 metadata ObjectMeta, 2 deleteOptions DeleteOptions
Scale: 1 metadata ObjectMeta, 2 spec ScaleSpec
ScaleSpec: 1 replicas i!
`;

interface Field {
  readonly name: string;
  readonly type: string;
  readonly mark: string;
}

const fieldsByMessage = new Map(
  messages
    .trim()
    .split(/\n(?=\S)/)
    .map((line) => {
      const [message = '', fields = ''] = line.split(': ');
      return [message, new Map(fields.split(/,\s+/).map(fieldOf))] as const;
    }),
);

function fieldOf(text: string): [number, Field] {
  const [, number, name = '', type = '', mark = ''] = /^(\d+) (\w+) (\w+)([*!]?)$/.exec(text)!;
  return [Number(number), { name, type, mark }];
}

const unreadable = (why: string) =>
  unsupportedType(
    `this control plane cannot read the protobuf body (${why}): send it as JSON or YAML, for example with kubectl apply -f`,
  );

interface Piece {
  readonly number: number;
  readonly value: bigint | Buffer;
}

function pieces(data: Uint8Array): Piece[] {
  const reader = new BinaryReader(data);
  const found: Piece[] = [];
  try {
    while (reader.pos < reader.len) {
      const [number, type] = reader.tag();
      if (type === WireType.Varint) found.push({ number, value: BigInt(reader.int64()) });
      else if (type === WireType.LengthDelimited) found.push({ number, value: Buffer.from(reader.bytes()) });
      else throw new Error(`a field is of wire type ${type}`);
    }
  } catch (error) {
    throw unreadable((error as Error).message);
  }
  return found;
}

// Go writes what is empty, too: a status without a word in it.
const isEmpty = (value: bigint | Buffer): boolean =>
  typeof value === 'bigint' ? value === 0n : pieces(value).every((piece) => isEmpty(piece.value));

function decode(message: string, data: Buffer): Record<string, unknown> {
  const fields = fieldsByMessage.get(message);
  if (!fields) throw unreadable(`${message} is not known`);
  const result: Record<string, unknown> = {};
  for (const { number, value } of pieces(data)) {
    const field = fields.get(number);
    if (!field && isEmpty(value)) continue;
    if (!field) throw unreadable(`field ${number} of ${message} is not known`);
    const { name, type, mark } = field;
    const read = readValue(type, value);
    if (type === 'M' || type === 'D') result[name] = { ...(result[name] as object), ...(read as object) };
    else if (mark === '*') result[name] = [...((result[name] as unknown[]) ?? []), read];
    else if (mark === '!' || read) result[name] = read;
  }
  return result;
}

function readValue(type: string, value: bigint | Buffer): unknown {
  if (typeof value === 'bigint') return type === 'b' ? value !== 0n : Number(value);
  switch (type) {
    case 's':
      return value.toString('utf8');
    case 'T': {
      const { seconds } = decode('Time', value);
      return seconds ? timestamp(Number(seconds) * 1000) : undefined;
    }
    case 'I': {
      const { type: kind, intVal, strVal } = decode('IntOrString', value);
      return kind === 1 ? strVal : (intVal ?? 0);
    }
    case 'M':
    case 'D': {
      const parts = new Map(pieces(value).map((piece) => [piece.number, piece.value as Buffer]));
      const item = parts.get(2) ?? Buffer.alloc(0);
      return { [parts.get(1)?.toString('utf8') ?? '']: item.toString(type === 'M' ? 'utf8' : 'base64') };
    }
    default:
      return decode(type, value);
  }
}

/** An object from its envelope: the magic, then apiVersion, kind and the object's own bytes. Throws 415. */
export function decodeProtobuf(body: Buffer): Record<string, unknown> {
  if (body.toString('latin1', 0, 4) !== 'k8s\0') throw unreadable('it does not begin as one');
  const envelope = new Map(pieces(body.subarray(4)).map(({ number, value }) => [number, value as Buffer]));
  const type = decode('TypeMeta', envelope.get(1) ?? Buffer.alloc(0));
  return { ...type, ...decode(String(type.kind), envelope.get(2) ?? Buffer.alloc(0)) };
}
