// The cluster's own configuration of its nodes, where kubeadm left it: the ConfigMaps kubelet-config and kube-proxy. They become the
// documents of our configuration file, with what this host decides put in.
import { parseDocument } from 'yaml';
import type { KubeClient } from '../../kube/client.ts';
import { isForbidden, isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import { kubeletApiVersion } from '../../agent/config.ts';
import { kubeProxyApiVersion } from '../../proxy/config.ts';
import { stevedoreApiVersion } from '../config/stevedore-configuration.ts';

export interface ClusterSettings {
  /** The text of the KubeletConfiguration; undefined where the cluster has none. */
  readonly kubelet: string | undefined;
  readonly proxy: string | undefined;
}

/** Reads the ConfigMaps; one that is not there, or not for us to see, is undefined. */
export async function readClusterSettings(client: KubeClient, signal: AbortSignal): Promise<ClusterSettings> {
  const read = async (name: string, key: string): Promise<string | undefined> => {
    try {
      const map = await client.get(resources.configMaps, { namespace: 'kube-system', name }, { signal });
      return map.data?.[key];
    } catch (error) {
      if (isNotFound(error) || isForbidden(error)) return undefined;
      throw error;
    }
  };
  return { kubelet: await read('kubelet-config', 'kubelet'), proxy: await read('kube-proxy', 'config.conf') };
}

export interface HostSettings {
  readonly runtimeEndpoint: string;
  readonly kubeconfig: string;
  readonly bootstrapKubeconfig: string;
  readonly nodeName: string;
  readonly caFile: string;
  /** Empty: as the host's routes say. */
  readonly nodeIp: string;
  readonly withProxy: boolean;
}

function kubeletDocument(text: string | undefined, host: HostSettings): string {
  const document = parseDocument(
    text ?? `apiVersion: ${kubeletApiVersion}\nkind: KubeletConfiguration\nrotateCertificates: true\n`,
  );
  document.set('containerRuntimeEndpoint', host.runtimeEndpoint);
  // Whoever left no configuration left no CA for the node's server either.
  if (text === undefined) document.setIn(['authentication', 'x509', 'clientCAFile'], host.caFile);
  return document.toString();
}

function proxyDocument(text: string | undefined): string {
  const document = parseDocument(text ?? `apiVersion: ${kubeProxyApiVersion}\nkind: KubeProxyConfiguration\n`);
  // The kubeconfig and host name of the cluster's DaemonSet are good only in its pods.
  if (document.hasIn(['clientConnection', 'kubeconfig'])) document.setIn(['clientConnection', 'kubeconfig'], '');
  if (document.has('hostnameOverride')) document.delete('hostnameOverride');
  return document.toString();
}

/** The configuration file's text. */
export function configurationFile(settings: ClusterSettings, host: HostSettings): string {
  const own = [
    `apiVersion: ${stevedoreApiVersion}`,
    'kind: StevedoreConfiguration',
    `kubeconfig: ${JSON.stringify(host.kubeconfig)}`,
    `bootstrapKubeconfig: ${JSON.stringify(host.bootstrapKubeconfig)}`,
    `hostnameOverride: ${JSON.stringify(host.nodeName)}`,
    ...(host.nodeIp === '' ? [] : [`nodeIP: ${JSON.stringify(host.nodeIp)}`]),
    ...(host.withProxy ? [] : ['proxy:', '  enabled: false']),
    '',
  ].join('\n');
  return [
    `# Written by stevedore join from the cluster's ${settings.kubelet === undefined ? 'defaults' : 'ConfigMaps kubelet-config and kube-proxy'}.\n${kubeletDocument(settings.kubelet, host)}`,
    ...(host.withProxy ? [proxyDocument(settings.proxy)] : []),
    own,
  ].join('---\n');
}

/** The affinity that keeps kube-proxy's DaemonSet away from a node, as a command. */
export const keepKubeProxyAway = (nodeName: string): string =>
  `kubectl -n kube-system patch daemonset kube-proxy --type=strategic -p '${JSON.stringify({
    spec: {
      template: {
        spec: {
          affinity: {
            nodeAffinity: {
              requiredDuringSchedulingIgnoredDuringExecution: {
                nodeSelectorTerms: [
                  { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'NotIn', values: [nodeName] }] },
                ],
              },
            },
          },
        },
      },
    },
  })}'`;
