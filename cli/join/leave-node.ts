// The steps of `stevedore leave`: the daemon stopped, its pods ended, its mounts and rules taken away, its files removed. Nothing recursive
// crosses a mount point.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { logindDropIn } from '../../agent/node/logind.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { ClientConfig } from '../../kube/client-config.ts';
import { isForbidden, isNotFound } from '../../kube/errors.ts';
import { loadKubeconfig } from '../../kube/kubeconfig.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { describeError } from '../../lib/log.ts';
import { isThere, type NodeFilesDeps, type NodeFilesOptions, removeNodeFiles } from './remove-node-files.ts';
import type { Service } from './service.ts';

export interface LeaveDeps extends NodeFilesDeps {
  readonly service: Service;
  readonly runtime: Pick<Runtime, 'listSandboxes' | 'stopSandbox' | 'removeSandbox'>;
  connect(config: ClientConfig): KubeClient;
  /** Removes the proxy's rules; returns what could not be removed. */
  removeRules(signal: AbortSignal): Promise<readonly string[]>;
  /** Removes the cgroups of pods; returns those that are still in use. */
  removeCgroups(): Promise<readonly string[]>;
  /** Has systemd-logind read its configuration again. */
  reloadLogind(): Promise<void>;
}

export interface LeaveOptions extends NodeFilesOptions {
  readonly nodeName: string;
  /** Leave although pods run that a drain would move. */
  readonly force: boolean;
}

/** The host cannot leave as things stand. */
export class LeaveError extends Error {
  override name = 'LeaveError';
}

/** Pods that a drain would move elsewhere. */
export const movable = (pods: readonly Pod[]): Pod[] =>
  pods.filter(
    ({ metadata, status }) =>
      status?.phase !== 'Succeeded' &&
      status?.phase !== 'Failed' &&
      metadata.annotations?.['kubernetes.io/config.mirror'] === undefined &&
      !metadata.ownerReferences?.some(({ kind }) => kind === 'DaemonSet'),
  );

async function askCluster(deps: LeaveDeps, options: LeaveOptions, signal: AbortSignal): Promise<void> {
  const kubeconfig = join(options.kubernetesDir, 'kubelet.conf');
  const config = await loadKubeconfig(kubeconfig).catch(() => undefined);
  if (!config) return;
  const client = deps.connect(config);
  try {
    const selection = { fieldSelector: `spec.nodeName=${options.nodeName}` };
    const { items } = await client.list(resources.pods, { ...selection, signal, timeoutMs: 10_000 });
    const left = movable(items);
    if (left.length > 0 && !options.force)
      throw new LeaveError(
        `${left.length} pods run here that can go elsewhere; move them first:\n  kubectl drain ${options.nodeName} --ignore-daemonsets --delete-emptydir-data\nor end them with --force`,
      );
  } catch (error) {
    if (error instanceof LeaveError) throw error;
    signal.throwIfAborted();
    deps.say(`  the cluster was not asked about this node's pods: ${describeError(error)}\n`);
  } finally {
    await client.close();
  }
}

async function deleteNode(deps: LeaveDeps, options: LeaveOptions, signal: AbortSignal): Promise<void> {
  const config = await loadKubeconfig(join(options.kubernetesDir, 'kubelet.conf')).catch(() => undefined);
  const byHand = `delete its object: kubectl delete node ${options.nodeName}\n`;
  if (!config) {
    deps.say(`the node may still be known to its cluster; ${byHand}`);
    return;
  }
  const client = deps.connect(config);
  try {
    await client.delete(resources.nodes, { name: options.nodeName }, { signal, timeoutMs: 10_000 });
    deps.say(`node ${options.nodeName} is deleted from the cluster\n`);
  } catch (error) {
    signal.throwIfAborted();
    if (isNotFound(error)) return;
    deps.say(
      isForbidden(error) ? `a node may not delete itself here; ${byHand}` : `${describeError(error)}; ${byHand}`,
    );
  } finally {
    await client.close();
  }
}

async function endPods(deps: LeaveDeps): Promise<void> {
  const sandboxes = (
    await deps.runtime.listSandboxes().catch((error: unknown) => {
      deps.say(`  the container runtime does not answer, its pods stay: ${describeError(error)}\n`);
      return [];
    })
  ).filter(({ labels }) => labels['io.kubernetes.pod.uid'] !== undefined);
  for (const { id, metadata } of sandboxes) {
    try {
      await deps.runtime.stopSandbox(id);
      await deps.runtime.removeSandbox(id);
    } catch (error) {
      deps.say(`  pod ${metadata.namespace}/${metadata.name} could not be removed: ${describeError(error)}\n`);
    }
  }
  if (sandboxes.length > 0) deps.say(`${sandboxes.length} pods ended\n`);
}

/** Can be run again after it failed. */
export async function leaveNode(deps: LeaveDeps, options: LeaveOptions, signal: AbortSignal): Promise<void> {
  await askCluster(deps, options, signal);
  await deps.service.stop();
  await endPods(deps);
  for (const failure of await deps.removeRules(signal)) deps.say(`  ${failure}\n`);
  await deleteNode(deps, options, signal);
  for (const path of await deps.removeCgroups()) deps.say(`  ${path} is still in use, and stays\n`);
  const still = await removeNodeFiles(deps, options, signal);
  if (still.length > 0)
    throw new LeaveError(
      `still mounted below ${options.rootDir}: ${still.join(', ')}. Unmount them and run stevedore leave again; nothing below was removed`,
    );
  if (await isThere(logindDropIn)) {
    await rm(logindDropIn, { force: true });
    await deps.reloadLogind();
  }
  deps.say('this host is no node any more\n');
}
