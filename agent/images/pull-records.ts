// Who may use an image that is there: the record of which credentials each was pulled with, in the kubelet's files and format, so that
// a pod cannot use what another pod's secret fetched. (KubeletEnsureSecretPulledImages, on by default since 1.35.)
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../lib/clock.ts';
import { readFileIfThere, writeFileAtomic } from '../../lib/files.ts';
import { type KeyedLock, createKeyedLock } from './keyed-lock.ts';
import type { Credential } from './keyring.ts';
import { planImageName } from './image-name.ts';

export type VerificationPolicy =
  | 'NeverVerify'
  | 'NeverVerifyPreloadedImages'
  | 'NeverVerifyAllowlistedImages'
  | 'AlwaysVerify';

interface SecretRecord {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly credentialHash: string;
}
interface AccountRecord {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
}
export interface PullCredentials {
  readonly kubernetesSecrets?: readonly SecretRecord[];
  readonly kubernetesServiceAccounts?: readonly AccountRecord[];
  readonly nodePodsAccessible?: boolean;
}
interface PulledRecord {
  readonly kind: 'ImagePulledRecord';
  readonly apiVersion: string;
  readonly lastUpdatedTime: string;
  readonly imageRef: string;
  readonly credentialMapping?: Readonly<Record<string, PullCredentials>>;
}

export interface PullRecords {
  /** Before a pull, so that a crash in its midst does not make the image look preloaded. */
  intend(image: string): Promise<void>;
  pulled(image: string, imageRef: string, credential: Credential | undefined): Promise<void>;
  failed(image: string): Promise<void>;
  /** Whether a pod must pull although the image is there. The pod's credentials are asked for only where they matter. */
  mustPull(image: string, imageRef: string, credentials: () => Promise<readonly Credential[]>): Promise<boolean>;
  /** Drops records, older than `beforeMs`, of images that are gone. */
  prune(present: readonly string[], beforeMs: number): Promise<void>;
}

export interface PullRecordsDeps {
  readonly clock: Clock;
}

export interface PullRecordsOptions {
  /** The kubelet's root; the records are below `image_manager`. */
  readonly rootDir: string;
  readonly policy: VerificationPolicy;
  /** With NeverVerifyAllowlistedImages: names without tag, or prefixes that end in `/*`. */
  readonly allowlist: readonly string[];
}

const apiVersion = 'kubelet.config.k8s.io/v1beta1';
const secretsForAll = 100;

/** Credentials as a record has them: the node's own mean everybody. */
export function recordOf(credential: Credential | undefined): PullCredentials {
  const source = credential?.source;
  if (!credential || !source) return { nodePodsAccessible: true };
  const { uid, namespace, name } = source;
  return source.kind === 'secret'
    ? { kubernetesSecrets: [{ uid, namespace, name, credentialHash: credential.hash }] }
    : { kubernetesServiceAccounts: [{ uid, namespace, name }] };
}

const sameSecret = (a: AccountRecord, b: AccountRecord): boolean =>
  a.uid === b.uid && a.namespace === b.namespace && a.name === b.name;

/** Undefined where nothing changes. */
export function mergeCredentials(
  known: PullCredentials | undefined,
  more: PullCredentials,
): PullCredentials | undefined {
  if (!known) return more;
  if (known.nodePodsAccessible) return undefined;
  if (more.nodePodsAccessible) return { nodePodsAccessible: true };
  const secrets = [...(known.kubernetesSecrets ?? [])];
  const accounts = [...(known.kubernetesServiceAccounts ?? [])];
  let changed = false;
  for (const secret of more.kubernetesSecrets ?? []) {
    const index = secrets.findIndex((other) => sameSecret(other, secret));
    if (index >= 0 && secrets[index]?.credentialHash === secret.credentialHash) continue;
    if (index >= 0) secrets[index] = secret;
    else secrets.push(secret);
    changed = true;
  }
  for (const account of more.kubernetesServiceAccounts ?? []) {
    if (accounts.some((other) => sameSecret(other, account))) continue;
    accounts.push(account);
    changed = true;
  }
  if (!changed) return undefined;
  return {
    ...(secrets.length > 0 ? { kubernetesSecrets: secrets } : {}),
    ...(accounts.length > 0 ? { kubernetesServiceAccounts: accounts } : {}),
  };
}

/** Whether one of the pod's credentials is one that the image was pulled with. */
export function mayUse(known: PullCredentials, credentials: readonly Credential[]): boolean {
  if (known.nodePodsAccessible) return true;
  return credentials.some(({ source, hash }) => {
    if (source?.kind === 'secret')
      return (known.kubernetesSecrets ?? []).some(
        // The same content under another name, or the same secret with its content rotated.
        (secret) => (secret.credentialHash !== '' && secret.credentialHash === hash) || sameSecret(secret, source),
      );
    return (
      source !== undefined && (known.kubernetesServiceAccounts ?? []).some((account) => sameSecret(account, source))
    );
  });
}

const fileName = (key: string): string => `sha256-${createHash('sha256').update(key).digest('hex')}`;
const withoutTag = (image: string): string => {
  const name = planImageName(image);
  return typeof name === 'string' ? image : name.repository;
};

function allowlisted(image: string, allowlist: readonly string[]): boolean {
  const name = withoutTag(image);
  return allowlist.some((pattern) =>
    pattern.endsWith('/*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern || name === withoutTag(pattern),
  );
}

export async function createPullRecords(deps: PullRecordsDeps, options: PullRecordsOptions): Promise<PullRecords> {
  const pulling = join(options.rootDir, 'image_manager', 'pulling');
  const done = join(options.rootDir, 'image_manager', 'pulled');
  for (const folder of [pulling, done]) await mkdir(folder, { recursive: true, mode: 0o700 });
  const intents = new Map<string, number>();
  const locks: KeyedLock = createKeyedLock();

  // Nobody else writes here: what was read or written once is known, as the kubelet has it. By path; undefined where there is no file.
  const texts = new Map<string, string | undefined>();
  let changes = 0;
  const readText = async (path: string): Promise<string | undefined> => {
    if (texts.has(path)) return texts.get(path);
    const before = changes;
    const text = await readFileIfThere(path);
    // Read while it was written, it may be old already.
    if (changes === before) texts.set(path, text);
    return text;
  };
  const change = async (path: string, work: () => Promise<void>): Promise<void> => {
    changes++;
    texts.delete(path);
    await work().finally(() => {
      changes++;
      texts.delete(path);
    });
  };
  const writeText = (path: string, text: string): Promise<void> =>
    change(path, () => writeFileAtomic(path, text, 0o600));
  const remove = (path: string): Promise<void> => change(path, () => rm(path, { force: true }));

  const read = async (imageRef: string): Promise<PulledRecord | 'unreadable' | undefined> => {
    const text = await readText(join(done, fileName(imageRef)));
    if (text === undefined) return undefined;
    try {
      const parsed = JSON.parse(text) as PulledRecord;
      return parsed.kind === 'ImagePulledRecord' ? parsed : 'unreadable';
    } catch {
      return 'unreadable';
    }
  };
  const note = (image: string, imageRef: string, more: PullCredentials | undefined): Promise<void> =>
    locks.run(imageRef, async () => {
      const known = await read(imageRef);
      const record = known === 'unreadable' ? undefined : known;
      const name = withoutTag(image);
      const merged = more && mergeCredentials(record?.credentialMapping?.[name], more);
      if (record && !merged) return;
      const next: PulledRecord = {
        kind: 'ImagePulledRecord',
        apiVersion,
        lastUpdatedTime: new Date(deps.clock.now()).toISOString(),
        imageRef,
        credentialMapping: { ...record?.credentialMapping, ...(merged ? { [name]: merged } : {}) },
      };
      await writeText(join(done, fileName(imageRef)), JSON.stringify(next));
    });
  const settle = (image: string): Promise<void> =>
    locks.run(image, async () => {
      const left = (intents.get(image) ?? 1) - 1;
      if (left > 0) {
        intents.set(image, left);
        return;
      }
      intents.delete(image);
      await remove(join(pulling, fileName(image)));
    });

  async function pulledByUs(image: string, record: PulledRecord | 'unreadable' | undefined): Promise<boolean> {
    if (record !== undefined || intents.has(image)) return true;
    return (await readText(join(pulling, fileName(image)))) !== undefined;
  }

  return {
    intend: (image) =>
      locks.run(image, async () => {
        intents.set(image, (intents.get(image) ?? 0) + 1);
        const intent = { kind: 'ImagePullIntent', apiVersion, image };
        await writeText(join(pulling, fileName(image)), JSON.stringify(intent));
      }),
    async pulled(image, imageRef, credential) {
      await note(image, imageRef, recordOf(credential));
      await settle(image);
    },
    failed: settle,
    async mustPull(image, imageRef, credentials) {
      const record = await read(imageRef);
      const ours = await pulledByUs(image, record);
      const { policy, allowlist } = options;
      if (policy === 'NeverVerify') return false;
      if (policy === 'NeverVerifyPreloadedImages' && !ours) return false;
      if (policy === 'NeverVerifyAllowlistedImages' && allowlisted(image, allowlist)) return false;
      if (record === undefined || record === 'unreadable') return true;
      const known = record.credentialMapping?.[withoutTag(image)];
      if (!known) return true;
      if (known.nodePodsAccessible) return false;
      const given = await credentials();
      if (!mayUse(known, given)) return true;
      // Remembers the name it was found under, so that the next look needs no comparison of content.
      const matching = given.filter((one) => one.source?.kind === 'secret' && mayUse(known, [one]));
      if ((known.kubernetesSecrets ?? []).length < secretsForAll)
        for (const one of matching) await note(image, imageRef, recordOf(one));
      return false;
    },
    async prune(present, beforeMs) {
      const kept = new Set(present.map(fileName));
      for (const name of await readdir(done)) {
        if (!name.startsWith('sha256-') || kept.has(name)) continue;
        const path = join(done, name);
        const text = await readFile(path, 'utf8').catch(() => '{}');
        let updatedMs = 0;
        try {
          updatedMs = Date.parse((JSON.parse(text) as PulledRecord).lastUpdatedTime) || 0;
        } catch {
          // What cannot be read protects nothing.
        }
        if (updatedMs < beforeMs) await remove(path);
      }
      // No more is kept than there are images.
      texts.clear();
    },
  };
}
