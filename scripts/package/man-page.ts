// Writes the man page, in the man macros of roff.
import type { CommandEntry, Flag } from './command-tree.ts';

/** Text of a line: backslashes, dashes that are to stay dashes, and a dot or quote at the beginning are roff's own. */
export const roff = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/, '\\&$1');

const flagText = ({ names, value }: Flag): string =>
  `${names.map((name) => `\\fB${roff(name)}\\fR`).join(', ')}${value ? ` \\fI${roff(value)}\\fR` : ''}`;

const flagLines = (flag: Flag): string[] => [
  '.TP',
  flagText(flag),
  roff(`${flag.description}${flag.fallback ? ` (default ${flag.fallback})` : ''}`),
];

const files: readonly [path: string, text: string][] = [
  ['/etc/stevedore/config.yaml', 'KubeletConfiguration, KubeProxyConfiguration and StevedoreConfiguration documents'],
  ['/etc/default/stevedore', 'more arguments of the daemon, and variables of its environment'],
  ['/etc/kubernetes/kubelet.conf', "the node's kubeconfig, written by stevedore join"],
  ['/var/lib/kubelet', 'pods, plugins, certificates'],
  ['/var/log/pods', 'logs of containers'],
  ['/run/stevedore/stevedore.sock', 'where stevedore status and why ask the daemon'],
  ['/var/cache/stevedore', 'what the daemon compiled, for its next start; may be deleted'],
];

export function manPage(commands: readonly CommandEntry[], version: string): string {
  const [program, ...subcommands] = commands;
  if (!program) throw new Error('there is no program to write a man page of');
  const lines = [
    `.TH STEVEDORE 8 "" "stevedore ${roff(version)}" "System Administration"`,
    '.SH NAME',
    `stevedore \\- ${roff(program.description)}`,
    '.SH SYNOPSIS',
    ...subcommands.flatMap(({ name, args, flags }, index) => [
      ...(index > 0 ? ['.br'] : []),
      `\\fBstevedore ${roff(name)}\\fR${flags.length > 0 ? ' [\\fIoptions\\fR]' : ''}${args.map(({ text }) => ` \\fI${roff(text)}\\fR`).join('')}`,
    ]),
    '.SH COMMANDS',
    ...subcommands.flatMap(({ name, description, args, flags }) => [
      `.SS "${roff(name)}"`,
      roff(description),
      ...args.flatMap((argument) => ['.TP', `\\fI${roff(argument.text)}\\fR`, roff(argument.description)]),
      ...flags.flatMap(flagLines),
    ]),
    '.SH OPTIONS',
    ...program.flags.flatMap(flagLines),
    '.SH FILES',
    ...files.flatMap(([path, text]) => ['.TP', `\\fI${roff(path)}\\fR`, roff(text)]),
    '.SH SEE ALSO',
    '.BR systemctl (1),',
    '.BR journalctl (1)',
  ];
  return `${lines.join('\n')}\n`;
}
