// Provider id, zone, region and type of an EC2 instance, from its metadata service (IMDSv2). Elsewhere nothing is asked at all: the firmware
// says whether this is EC2.
import { readFile } from 'node:fs/promises';
import { withTimeout } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';

export interface InstanceMetadata {
  /** `aws:///ZONE/INSTANCE`. */
  readonly providerId: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface InstanceMetadataDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Default: fetch. */
  readonly request?: (
    url: string,
    init: { method: string; headers: Record<string, string>; signal: AbortSignal },
  ) => Promise<{
    readonly ok: boolean;
    readonly status: number;
    text(): Promise<string>;
  }>;
  /** Default: the DMI tables under /sys. */
  readonly isEc2?: () => Promise<boolean>;
}

const service = 'http://169.254.169.254';
const timeoutMs = 2000;
const retries = 3;

async function firmwareSaysEc2(): Promise<boolean> {
  const read = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
  if ((await read('/sys/class/dmi/id/sys_vendor')).trim() === 'Amazon EC2') return true;
  // Xen instances, and arm64 ones that have no DMI.
  return (
    /^ec2/i.test(await read('/sys/hypervisor/uuid')) ||
    /^ec2/i.test(await read('/sys/devices/virtual/dmi/id/product_uuid'))
  );
}

/** Undefined where this is no EC2 instance, or where its service does not answer (which is logged). */
export async function readInstanceMetadata(
  deps: InstanceMetadataDeps,
  signal: AbortSignal,
): Promise<InstanceMetadata | undefined> {
  if (!(await (deps.isEc2 ?? firmwareSaysEc2)())) return undefined;
  const request = deps.request ?? fetch;
  const ask = (method: 'GET' | 'PUT', path: string, headers: Record<string, string>): Promise<string> =>
    withTimeout(deps.clock, `EC2 metadata ${path}`, timeoutMs, signal, async (inner) => {
      const answer = await request(`${service}${path}`, { method, headers, signal: inner });
      if (!answer.ok) throw new Error(`EC2 metadata ${path}: HTTP ${answer.status}`);
      return (await answer.text()).trim();
    });
  for (let attempt = 1; ; attempt++) {
    try {
      const token = await ask('PUT', '/latest/api/token', { 'X-aws-ec2-metadata-token-ttl-seconds': '60' });
      const get = (path: string): Promise<string> =>
        ask('GET', `/latest/meta-data/${path}`, { 'X-aws-ec2-metadata-token': token });
      const [instance, zone, region, type] = await Promise.all([
        get('instance-id'),
        get('placement/availability-zone'),
        get('placement/region'),
        get('instance-type'),
      ]);
      return {
        providerId: `aws:///${zone}/${instance}`,
        labels: {
          'topology.kubernetes.io/zone': zone,
          'topology.kubernetes.io/region': region,
          'failure-domain.beta.kubernetes.io/zone': zone,
          'failure-domain.beta.kubernetes.io/region': region,
          'node.kubernetes.io/instance-type': type,
          'beta.kubernetes.io/instance-type': type,
        },
      };
    } catch (error) {
      signal.throwIfAborted();
      if (attempt < retries) {
        await deps.clock.sleep(500, signal);
        continue;
      }
      deps.log.warn('the EC2 metadata service does not answer; the node gets no provider id and no zone', { error });
      return undefined;
    }
  }
}
