// Images for pods, put together: names and policies, credentials from secrets, the node and exec providers, records of who may use what.
import type { Runtime } from '../../cri/runtime.ts';
import type { ImageSpec } from '../../cri/types.ts';
import { type EventRecorder, podTarget } from '../../kube/events.ts';
import type { Secret } from '../../kube/types/core.ts';
import type { Container, Pod, PullPolicy } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import { exec } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';
import { readCredentialProviderConfig } from './credential-provider-config.ts';
import {
  createCredentialProviders,
  type CredentialProviders,
  type CredentialProvidersDeps,
} from './credential-providers.ts';
import { ImageError } from './image-error.ts';
import { createImagePuller, type ImagePullerDeps, type PulledImage } from './image-puller.ts';
import { type Credential, type KeyringEntry, lookUpCredentials } from './keyring.ts';
import { credentialFiles, readNodeCredentials } from './node-credentials.ts';
import { createPullRecords, type PullRecords, type VerificationPolicy } from './pull-records.ts';
import { entriesOfSecrets } from './pull-secrets.ts';

export interface PodImagesDeps
  extends Pick<CredentialProvidersDeps, 'serviceAccount' | 'serviceAccountToken'>,
    Pick<ImagePullerDeps, 'onAsked'> {
  readonly runtime: Pick<Runtime, 'pullImage' | 'imageStatus'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly events?: EventRecorder;
  /** Undefined where there is no such secret. `holder` is the pod's uid: it holds the secret until it is released. */
  secret(namespace: string, name: string, holder: string, signal: AbortSignal): Promise<Secret | undefined>;
  /** See ImagePullerDeps. */
  onPulled?(sizeBytes: number, tookMs: number): void;
}

/** The fields of KubeletConfiguration that images heed. */
export interface PodImagesConfig {
  readonly serializeImagePulls?: boolean | undefined;
  readonly maxParallelImagePulls?: number | undefined;
  readonly registryPullQPS: number;
  readonly registryBurst: number;
  readonly imagePullCredentialsVerificationPolicy: VerificationPolicy;
  readonly preloadedImagesVerificationAllowlist: readonly string[];
}

export interface PodImagesOptions {
  /** Default `/var/lib/kubelet`. */
  readonly rootDir?: string;
  /** Of the exec credential providers (the kubelet's --image-credential-provider-config and -bin-dir). */
  readonly credentialProviderConfig?: string;
  readonly credentialProviderBinDir?: string;
  /** Where docker's own configuration files are looked for. Default `/root`. */
  readonly home?: string;
}

export interface PodImages {
  /** The image of a container. Rejects with an ImageError, or with the signal's reason. */
  ensure(
    pod: Pod,
    container: Pick<Container, 'name' | 'image' | 'imagePullPolicy'>,
    signal: AbortSignal,
  ): Promise<PulledImage>;
  /** The image of an image volume, as the runtime knows it. */
  ensureVolumeImage(
    pod: Pod,
    reference: string,
    policy: PullPolicy | undefined,
    signal: AbortSignal,
  ): Promise<ImageSpec>;
  /** The pod is gone. */
  forget(podUid: string): void;
  /** For the image garbage collector: records of images that are gone are dropped. */
  readonly records: PullRecords;
}

const kinds = ['initContainers', 'containers', 'ephemeralContainers'] as const;

/** `spec.containers{web}`, as Events name a container. */
export function containerFieldPath(pod: Pod, name: string): string {
  const kind = kinds.find((list) => pod.spec?.[list]?.some((container) => container.name === name)) ?? 'containers';
  return `spec.${kind}{${name}}`;
}

/** Rejects where the configuration of the credential providers cannot be read. */
export async function createPodImages(
  deps: PodImagesDeps,
  config: PodImagesConfig,
  options: PodImagesOptions = {},
): Promise<PodImages> {
  const { rootDir = '/var/lib/kubelet' } = options;
  const records = await createPullRecords(deps, {
    rootDir,
    policy: config.imagePullCredentialsVerificationPolicy,
    allowlist: config.preloadedImagesVerificationAllowlist,
  });
  const providers = await openProviders(deps, options);
  const files = credentialFiles(rootDir, options.home);

  async function secretEntries(pod: Pod, signal: AbortSignal): Promise<KeyringEntry[]> {
    const namespace = pod.metadata.namespace ?? 'default';
    const names = (pod.spec?.imagePullSecrets ?? []).flatMap(({ name }) => (name ? [name] : []));
    const secrets = await Promise.all(
      names.map(async (name) => {
        try {
          return await deps.secret(namespace, name, pod.metadata.uid ?? '', signal);
        } catch (error) {
          signal.throwIfAborted();
          deps.log.warn('an image pull secret cannot be read; the pull goes on without it', {
            pod: `${namespace}/${pod.metadata.name}`,
            secret: name,
            error,
          });
          return undefined;
        }
      }),
    );
    const missing = names.filter((_, index) => secrets[index] === undefined);
    if (missing.length > 0)
      deps.events?.record(
        podTarget(pod),
        'Warning',
        'FailedToRetrieveImagePullSecret',
        `Unable to retrieve some image pull secrets (${missing.join(', ')}); attempting to pull the image may not succeed.`,
      );
    return entriesOfSecrets(secrets.filter((secret) => secret !== undefined));
  }

  async function credentials(pod: Pod, repository: string, signal: AbortSignal): Promise<Credential[]> {
    const [secrets, node, provided] = await Promise.all([
      secretEntries(pod, signal),
      readNodeCredentials(deps.log, files),
      providers?.lookUp(pod, repository, signal) ?? Promise.resolve([]),
    ]);
    return [...lookUpCredentials(secrets, repository), ...lookUpCredentials(node, repository), ...provided];
  }

  const puller = createImagePuller(
    { ...deps, credentials, records },
    {
      serializeImagePulls: config.serializeImagePulls ?? (config.maxParallelImagePulls ?? 1) <= 1,
      maxParallelImagePulls: config.maxParallelImagePulls,
      registryPullQPS: config.registryPullQPS,
      registryBurst: config.registryBurst,
    },
  );

  return {
    async ensure(pod, container, signal) {
      const target = podTarget(pod, containerFieldPath(pod, container.name));
      try {
        return await puller.ensure(
          { pod, image: container.image ?? '', pullPolicy: container.imagePullPolicy, target },
          signal,
        );
      } catch (error) {
        if (error instanceof ImageError) deps.events?.record(target, 'Warning', 'Failed', `Error: ${error.reason}`);
        throw error;
      }
    },
    async ensureVolumeImage(pod, reference, policy, signal) {
      const { imageRef } = await puller.ensure(
        { pod, image: reference, pullPolicy: policy, target: podTarget(pod) },
        signal,
      );
      return { image: imageRef, userSpecifiedImage: reference };
    },
    forget: (uid) => puller.forget(uid),
    records,
  };
}

async function openProviders(deps: PodImagesDeps, options: PodImagesOptions): Promise<CredentialProviders | undefined> {
  const { credentialProviderConfig: config, credentialProviderBinDir: binDir } = options;
  if (config === undefined && binDir === undefined) return undefined;
  if (config === undefined || binDir === undefined)
    throw new Error('exec credential providers need both a configuration file and a folder of programs');
  return createCredentialProviders(
    { ...deps, exec },
    { providers: await readCredentialProviderConfig(config), binDir },
  );
}
