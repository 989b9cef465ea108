// What the API server fills in where a pod, or a pod template, leaves it out. Source: the API reference, 1.36.
import { canonicalQuantity, QuantityError } from './quantity.ts';
import type { Container, LifecycleHandler, Pod, PodSpec, Probe, ResourceRequirements } from './types/pod.ts';
import type { Volume } from './types/volume.ts';

const filePermissions = 0o644;

/** Throws a QuantityError that names the resource for a quantity that is none. */
function canonicalResources(resources: ResourceRequirements | undefined): void {
  for (const list of [resources?.requests, resources?.limits])
    for (const [name, quantity] of Object.entries(list ?? {})) {
      try {
        list![name] = canonicalQuantity(quantity);
      } catch (error) {
        if (error instanceof QuantityError) throw new QuantityError(`${name}: ${error.message}`);
        throw error;
      }
    }
}

/** Changes the spec in place. Throws a QuantityError. */
export function defaultPodSpec(spec: PodSpec): void {
  spec.restartPolicy ??= 'Always';
  spec.terminationGracePeriodSeconds ??= 30;
  spec.dnsPolicy ??= 'ClusterFirst';
  spec.schedulerName ??= 'default-scheduler';
  spec.securityContext ??= {};
  spec.enableServiceLinks ??= true;
  const legacy = spec as { serviceAccount?: string };
  spec.serviceAccountName ??= legacy.serviceAccount ?? '';
  if (spec.serviceAccountName === '') delete (spec as { serviceAccountName?: string }).serviceAccountName;
  if (spec.serviceAccountName) legacy.serviceAccount = spec.serviceAccountName;
  canonicalResources(spec.resources);
  for (const volume of spec.volumes ?? []) defaultVolume(volume);
  for (const list of [spec.initContainers, spec.containers, spec.ephemeralContainers])
    for (const container of list ?? []) defaultContainer(container, spec.hostNetwork ?? false);
}

/** Defaults that belong to pods and not to templates. */
export function defaultPod(pod: Pod): void {
  defaultPodSpec(pod.spec);
  const all = [pod.spec, ...pod.spec.containers, ...(pod.spec.initContainers ?? [])];
  for (const { resources } of all) {
    if (!resources?.limits) continue;
    resources.requests ??= {};
    for (const [name, limit] of Object.entries(resources.limits)) resources.requests[name] ??= limit;
  }
  pod.status ??= {};
  pod.status.phase ??= 'Pending';
}

function defaultContainer(container: Container, hostNetwork: boolean): void {
  container.terminationMessagePath ??= '/dev/termination-log';
  container.terminationMessagePolicy ??= 'File';
  container.imagePullPolicy ??= pullPolicyOf(container.image ?? '');
  container.resources ??= {};
  canonicalResources(container.resources);
  for (const port of container.ports ?? []) {
    port.protocol ??= 'TCP';
    if (hostNetwork) port.hostPort ??= port.containerPort;
  }
  for (const { valueFrom } of container.env ?? []) {
    if (valueFrom?.fieldRef) valueFrom.fieldRef.apiVersion ??= 'v1';
    if (valueFrom?.resourceFieldRef) valueFrom.resourceFieldRef.divisor ??= '0';
  }
  for (const probe of [container.livenessProbe, container.readinessProbe, container.startupProbe])
    if (probe) defaultProbe(probe);
  defaultHandler(container.lifecycle?.postStart);
  defaultHandler(container.lifecycle?.preStop);
}

/** `Always` for an image without a tag or with `latest`, else `IfNotPresent`. */
function pullPolicyOf(image: string): 'Always' | 'IfNotPresent' {
  if (image.includes('@')) return 'IfNotPresent';
  const last = image.slice(image.lastIndexOf('/') + 1);
  const tag = last.includes(':') ? last.slice(last.indexOf(':') + 1) : 'latest';
  return tag === 'latest' ? 'Always' : 'IfNotPresent';
}

function defaultProbe(probe: Probe): void {
  probe.timeoutSeconds ||= 1;
  probe.periodSeconds ||= 10;
  probe.successThreshold ||= 1;
  probe.failureThreshold ||= 3;
  if (probe.grpc) probe.grpc.service ??= '';
  defaultHandler(probe);
}

function defaultHandler(handler: LifecycleHandler | Probe | undefined): void {
  if (!handler?.httpGet) return;
  handler.httpGet.path ||= '/';
  handler.httpGet.scheme ||= 'HTTP';
}

function defaultVolume(volume: Volume): void {
  const sources = Object.keys(volume).filter((key) => key !== 'name');
  if (sources.length === 0) volume.emptyDir = {};
  for (const source of [volume.configMap, volume.secret, volume.downwardAPI, volume.projected])
    if (source) source.defaultMode ??= filePermissions;
  if (volume.hostPath) volume.hostPath.type ??= '';
  for (const item of volume.downwardAPI?.items ?? []) if (item.fieldRef) item.fieldRef.apiVersion ??= 'v1';
  for (const source of volume.projected?.sources ?? []) {
    if (source.serviceAccountToken) source.serviceAccountToken.expirationSeconds ??= 3600;
    for (const item of source.downwardAPI?.items ?? []) if (item.fieldRef) item.fieldRef.apiVersion ??= 'v1';
  }
  const claim = volume.ephemeral?.volumeClaimTemplate?.spec;
  if (claim) claim.volumeMode ??= 'Filesystem';
}
