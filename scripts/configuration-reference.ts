// Writes docs/configuration.md from the schemas that read the configuration: `npm run configuration-reference`; with --check it only says whether the
// page is what they say.
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { notHonoured } from '../agent/config-rules.ts';
import { defaultKubeletConfiguration, kubeletApiVersion, kubeletConfigurationFields } from '../agent/config.ts';
import { combineConfiguration } from '../cli/config/load.ts';
import { stevedoreApiVersion, stevedoreConfigurationFields } from '../cli/config/stevedore-configuration.ts';
import { kubeProxyApiVersion, kubeProxyConfigurationFields } from '../proxy/config.ts';
import { fieldRows } from './package/field-rows.ts';

const page = fileURLToPath(new URL('../docs/configuration.md', import.meta.url));

interface Section {
  readonly title: string;
  readonly apiVersion: string;
  readonly text: string;
  readonly schema: unknown;
  readonly values: unknown;
  readonly remarks: Readonly<Record<string, string>>;
}

function sections(): Section[] {
  const { proxy, stevedore } = combineConfiguration([], [], []);
  return [
    {
      title: 'StevedoreConfiguration',
      apiVersion: stevedoreApiVersion,
      text: 'What neither document of Kubernetes has a field for; most of it are flags of the kubelet. A flag of the command line wins.',
      schema: stevedoreConfigurationFields,
      values: stevedore,
      remarks: {},
    },
    {
      title: 'KubeletConfiguration',
      apiVersion: kubeletApiVersion,
      text: "Kubernetes 1.36's own document. A field of it that changes nothing here says so, in this table and in a warning when it is set.",
      schema: kubeletConfigurationFields,
      values: defaultKubeletConfiguration(),
      remarks: notHonoured as Readonly<Record<string, string>>,
    },
    {
      title: 'KubeProxyConfiguration',
      apiVersion: kubeProxyApiVersion,
      text: "Kubernetes 1.36's own document.",
      schema: kubeProxyConfigurationFields,
      values: proxy,
      remarks: {},
    },
  ];
}

const cell = (text: string): string => text.replaceAll('|', '\\|');

function sectionText({ title, apiVersion, text, schema, values, remarks }: Section): string {
  const rows = fieldRows(schema, values).filter(({ path }) => path !== 'apiVersion' && path !== 'kind');
  const lines = rows.map(({ path, type, fallback }) => {
    const remark = remarks[path.split('.')[0] ?? ''];
    return `| \`${path}\` | ${cell(type)} | ${fallback === '' ? '' : `\`${cell(fallback)}\``} | ${remark === undefined ? '' : `not honoured: ${remark}`} |`;
  });
  return `## ${title}\n\n\`apiVersion: ${apiVersion}\`. ${text}\n\n| field | type | default | |\n|---|---|---|---|\n${lines.join('\n')}\n`;
}

const text = `# Configuration

<!-- Written by scripts/configuration-reference.ts from the schemas; do not edit. -->

\`stevedore run --config FILE\` reads one or several files of YAML documents, each of one of the kinds below; the package's unit reads
\`/etc/stevedore/config.yaml\`. Drop-ins of \`--config-dir\` (\`*.conf\`, in the order of their names) are merged over them, flags over both. All
kinds and all fields may be absent. A field that a document does not know is an error that names file, line and column; so is a value that
cannot be. Durations are written as Go writes them (\`1h30m\`, \`250ms\`).

${sections().map(sectionText).join('\n')}`;

if (process.argv.includes('--check')) {
  const there = await readFile(page, 'utf8').catch(() => '');
  if (there !== text) {
    process.stderr.write('docs/configuration.md is not what the schemas say: npm run configuration-reference\n');
    process.exitCode = 1;
  }
} else await writeFile(page, text);
