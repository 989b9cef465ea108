// Reads the daemon's configuration: files of several YAML documents, drop-ins merged over them, flags over both. Every problem is
// reported with its place; nothing is ignored in silence.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import {
  completeKubeletConfiguration,
  defaultKubeletConfiguration,
  kubeletApiVersion,
  kubeletConfigurationFields,
  type KubeletConfiguration,
} from '../../agent/config.ts';
import { refuseKubeletConfiguration, remarkKubeletConfiguration } from '../../agent/config-rules.ts';
import {
  ConfigurationError,
  mergeValues,
  parseDocuments,
  describeProblem,
  type ConfigurationProblem,
  type FieldPath,
  type Layer,
} from './documents.ts';
import { proxyKind, type KubeProxyConfiguration } from './proxy-document.ts';
import {
  stevedoreApiVersion,
  stevedoreConfigurationFields,
  type StevedoreConfiguration,
} from './stevedore-configuration.ts';

/** How one kind of document becomes a configuration. */
export interface DocumentKind<T> {
  readonly apiVersion: string;
  readonly kind: string;
  /** Fields as the file may hold them, with defaults. */
  readonly schema: v.GenericSchema<unknown, unknown>;
  complete(fields: unknown): T;
  refuse(config: T): readonly { path: FieldPath; message: string }[];
  remark(config: T): readonly { path: FieldPath; message: string }[];
}

const kubeletKind: DocumentKind<KubeletConfiguration> = {
  apiVersion: kubeletApiVersion,
  kind: 'KubeletConfiguration',
  schema: kubeletConfigurationFields,
  complete: (fields) => completeKubeletConfiguration(fields as v.InferOutput<typeof kubeletConfigurationFields>),
  refuse: refuseKubeletConfiguration,
  remark: (config) => remarkKubeletConfiguration(config, defaultKubeletConfiguration()),
};

const stevedoreKind: DocumentKind<StevedoreConfiguration> = {
  apiVersion: stevedoreApiVersion,
  kind: 'StevedoreConfiguration',
  schema: stevedoreConfigurationFields,
  complete: (fields) => fields as StevedoreConfiguration,
  refuse: (config) =>
    config.agent.enabled || config.proxy.enabled
      ? []
      : [{ path: ['agent', 'enabled'], message: 'agent and proxy cannot both be switched off' }],
  remark: () => [],
};

/** A flag of the command line that sets a field of a document. */
export interface FlagSetting {
  /** As it was typed, for example `--node-ip`. */
  readonly flag: string;
  readonly kind: 'KubeletConfiguration' | 'KubeProxyConfiguration' | 'StevedoreConfiguration';
  readonly path: readonly string[];
  readonly value: unknown;
}

export interface ConfigurationSources {
  /** Each file may hold documents of all kinds; one kind may stand only once. */
  readonly files: readonly string[];
  /** A folder whose `*.conf` files are merged over the files, in the order of their names. */
  readonly dropInFolder?: string | undefined;
  readonly flags?: readonly FlagSetting[];
}

export interface Configuration {
  readonly kubelet: KubeletConfiguration;
  readonly proxy: KubeProxyConfiguration;
  readonly stevedore: StevedoreConfiguration;
  /** Kinds that some file held: others are all defaults. */
  readonly given: ReadonlySet<string>;
  /** One line each, with file, line and column. */
  readonly warnings: readonly string[];
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new ConfigurationError([
      { where: file, field: '', message: code === 'ENOENT' ? 'no such file' : `cannot be read: ${message}` },
    ]);
  }
}

async function readDropIns(folder: string): Promise<string[]> {
  try {
    const names = await readdir(folder);
    return names
      .filter((name) => name.endsWith('.conf'))
      .sort()
      .map((name) => join(folder, name));
  } catch (error) {
    throw new ConfigurationError([
      { where: folder, field: '', message: `the drop-in folder cannot be read: ${(error as Error).message}` },
    ]);
  }
}

function flagLayers(flags: readonly FlagSetting[]): Layer[] {
  return flags.map(({ flag, kind, path, value }) => ({
    kind,
    apiVersion: '',
    value: path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value) as Record<string, unknown>,
    locate: (at) => (path.every((key, index) => at[index] === key) ? `flag ${flag}` : undefined),
  }));
}

const fieldName = (path: FieldPath): string =>
  path.map((key, index) => (typeof key === 'number' ? `[${key}]` : index === 0 ? key : `.${key}`)).join('');

function place(layers: readonly Layer[], path: FieldPath, at: 'key' | 'value'): string {
  for (let length = path.length; length >= 0; length--) {
    for (const layer of layers.toReversed()) {
      const where = layer.locate(path.slice(0, length), at);
      if (where !== undefined) return where;
    }
  }
  return 'configuration';
}

function build<T>(
  kind: DocumentKind<T>,
  layers: readonly Layer[],
  problems: ConfigurationProblem[],
  warnings: string[],
) {
  const merged = layers.reduce<unknown>((base, layer) => mergeValues(base, layer.value), {});
  const result = v.safeParse(kind.schema, merged);
  if (!result.success) {
    for (const issue of result.issues) {
      const steps = issue.path ?? [];
      const path = steps.map((step) => step.key as string | number);
      const unknown = steps.at(-1)?.origin === 'key';
      problems.push({
        where: place(layers, path, unknown ? 'key' : 'value'),
        field: fieldName(path),
        message: unknown ? `${kind.kind} has no such field` : issue.message,
      });
    }
    return undefined;
  }
  const config = kind.complete(result.output);
  for (const { path, message } of kind.refuse(config))
    problems.push({ where: place(layers, path, 'value'), field: fieldName(path), message });
  for (const { path, message } of kind.remark(config))
    warnings.push(describeProblem({ where: place(layers, path, 'key'), field: fieldName(path), message }));
  return config;
}

function checkKinds(layers: readonly Layer[], kinds: readonly DocumentKind<never>[]): ConfigurationProblem[] {
  return layers.flatMap((layer) => {
    const where = layer.locate(['kind']) ?? layer.locate(['apiVersion']) ?? layer.locate([]) ?? 'configuration';
    const known = kinds.find(({ kind }) => kind === layer.kind);
    if (!known) {
      const names = kinds.map(({ kind, apiVersion }) => `${kind} (${apiVersion})`).join(', ');
      return [{ where, field: 'kind', message: `"${layer.kind}" is not one of ${names}` }];
    }
    if (known.apiVersion === layer.apiVersion) return [];
    return [
      { where, field: 'apiVersion', message: `"${layer.apiVersion}" of ${layer.kind} must be ${known.apiVersion}` },
    ];
  });
}

function checkTwice(layers: readonly Layer[]): ConfigurationProblem[] {
  const seen = new Map<string, string>();
  return layers.flatMap((layer) => {
    const where = layer.locate(['kind']) ?? 'configuration';
    const before = seen.get(layer.kind);
    seen.set(layer.kind, where);
    return before === undefined
      ? []
      : [{ where, field: 'kind', message: `a second ${layer.kind}; the first stands at ${before}` }];
  });
}

/** Reads and checks everything. Throws a ConfigurationError that lists all that is wrong. */
export async function loadConfiguration(sources: ConfigurationSources): Promise<Configuration> {
  const base: Layer[] = [];
  for (const file of sources.files) base.push(...parseDocuments(file, await readText(file)));
  const dropIns: Layer[] = [];
  if (sources.dropInFolder !== undefined) {
    for (const file of await readDropIns(sources.dropInFolder))
      dropIns.push(...parseDocuments(file, await readText(file)));
  }
  return combineConfiguration(base, dropIns, sources.flags ?? []);
}

/** The pure half of loadConfiguration. */
export function combineConfiguration(
  base: readonly Layer[],
  dropIns: readonly Layer[],
  flags: readonly FlagSetting[],
): Configuration {
  const files = [...base, ...dropIns];
  const problems = [
    ...checkKinds(files, [kubeletKind, proxyKind, stevedoreKind] as DocumentKind<never>[]),
    ...checkTwice(base),
  ];
  if (problems.length > 0) throw new ConfigurationError(problems);
  const all = [...files, ...flagLayers(flags)];
  const of = (kind: string): Layer[] => all.filter((layer) => layer.kind === kind);
  const warnings: string[] = [];
  const kubelet = build(kubeletKind, of(kubeletKind.kind), problems, warnings);
  const proxy = build(proxyKind, of(proxyKind.kind), problems, warnings);
  const stevedore = build(stevedoreKind, of(stevedoreKind.kind), problems, warnings);
  if (problems.length > 0 || !kubelet || !proxy || !stevedore) throw new ConfigurationError(problems);
  return { kubelet, proxy, stevedore, given: new Set(files.map(({ kind }) => kind)), warnings };
}
