// A node that is given a kubeconfig instead of joining: for stories that are not about the way in.
import { readFile } from 'node:fs/promises';
import type { Pem } from '../../kube/client-config.ts';
import { loadKubeconfig } from '../../kube/kubeconfig.ts';
import { renderKubeconfig } from '../../kube/render-kubeconfig.ts';
import { nodeName, type World } from './world.ts';

const minutes = 60_000;

/** Writes the node's own kubeconfig and the configuration (which names /etc/kubernetes/kubelet.conf and ca.crt), starts the packaged unit, waits for Ready. */
export async function startNode({ machine, plane, nodeReady }: World, configuration: string): Promise<void> {
  const config = await loadKubeconfig(await plane.nodeKubeconfig(nodeName));
  const inline = async (pem: Pem | undefined): Promise<Pem> =>
    pem?.from === 'file' ? { from: 'data', pem: await readFile(pem.path, 'utf8') } : pem!;
  const given = renderKubeconfig({
    cluster: 'lab',
    server: config.server,
    certificateAuthority: await inline(config.certificateAuthority),
    user: nodeName,
    client: { certificate: await inline(config.clientCertificate), key: await inline(config.clientKey) },
  });
  const put = (path: string, input: string): Promise<string> => machine.run(`cat > ${path}`, { input });
  await machine.run('mkdir -p /etc/kubernetes');
  await put('/etc/kubernetes/ca.crt', await readFile(plane.caFile, 'utf8'));
  await put('/etc/kubernetes/kubelet.conf', given);
  await put('/etc/stevedore/config.yaml', configuration);
  await machine.run('systemctl restart stevedore', { timeoutMs: 10 * minutes });
  await nodeReady(10 * minutes);
}
