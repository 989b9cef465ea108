// What a pod is called inside: host name and domain.
import type { Pod } from '../../kube/types/pod.ts';
import { ConfigError } from './config-error.ts';

export interface PodHostname {
  /** At most 63 characters. */
  readonly hostname: string;
  /** `subdomain.namespace.svc.clusterDomain`; empty where the pod has no subdomain. */
  readonly domain: string;
}

const label = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const labelRules =
  "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const subdomainRules =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

function checkLabel(what: string, value: string): void {
  const wrong: string[] = [];
  if (value.length > 63) wrong.push('must be no more than 63 characters');
  if (!label.test(value)) wrong.push(labelRules);
  if (wrong.length > 0) throw new ConfigError(`pod ${what} "${value}" is not a valid DNS label: ${wrong.join(';')}`);
}

function truncate(podName: string, hostname: string): string {
  if (hostname.length <= 63) return hostname;
  const short = hostname.slice(0, 63).replace(/[-.]+$/, '');
  if (short === '') throw new ConfigError(`hostname for pod "${podName}" was invalid: "${hostname}"`);
  return short;
}

/** Throws a ConfigError for names that are none. */
export function podHostname(pod: Pod, clusterDomain: string): PodHostname {
  const { hostnameOverride, hostname, subdomain } = pod.spec;
  if (hostnameOverride !== undefined) {
    const valid = hostnameOverride.length <= 253 && hostnameOverride.split('.').every((part) => label.test(part));
    if (!valid)
      throw new ConfigError(
        `pod HostnameOverride "${hostnameOverride}" is not a valid DNS subdomain: ${subdomainRules}`,
      );
    return { hostname: truncate(pod.metadata.name, hostnameOverride), domain: '' };
  }
  if (hostname) checkLabel('Hostname', hostname);
  if (subdomain) checkLabel('Subdomain', subdomain);
  return {
    hostname: truncate(pod.metadata.name, hostname || pod.metadata.name),
    domain: subdomain ? `${subdomain}.${pod.metadata.namespace ?? 'default'}.svc.${clusterDomain}` : '',
  };
}

/** The name the kernel is given: the short one, or with setHostnameAsFQDN the full one, which must fit into 64 characters. */
export function kernelHostname(pod: Pod, { hostname, domain }: PodHostname): string {
  if (!pod.spec.setHostnameAsFQDN || domain === '') return hostname;
  const full = `${hostname}.${domain}`;
  if (full.length > 64)
    throw new ConfigError(
      `failed to construct FQDN from pod hostname and cluster domain, FQDN ${full} is too long (64 characters is the max, ${full.length} characters requested)`,
    );
  return full;
}
