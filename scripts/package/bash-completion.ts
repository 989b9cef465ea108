// Writes the completion of bash: subcommands, their flags, and files after flags that take one.
import type { CommandEntry } from './command-tree.ts';

const word = (text: string): string => {
  if (!/^[\w./-]+$/.test(text)) throw new Error(`"${text}" cannot stand in a completion without quotes`);
  return text;
};

const takesFile = (value: string): boolean => /file|folder|socket/.test(value);
const takesValue = (value: string): boolean => value.startsWith('<');

export function bashCompletion(commands: readonly CommandEntry[]): string {
  const [program, ...subcommands] = commands;
  if (!program) throw new Error('there is no program to complete');
  const namesWhere = (flags: CommandEntry['flags'], is: (value: string) => boolean): string[] =>
    flags.filter(({ value }) => is(value)).flatMap(({ names }) => names.map(word));
  const cases = subcommands.map(({ name, flags }) => {
    const files = namesWhere(flags, (value) => takesValue(value) && takesFile(value));
    const others = namesWhere(flags, (value) => takesValue(value) && !takesFile(value));
    return [
      `    ${word(name)})`,
      ...(files.length + others.length > 0
        ? [
            '      case $previous in',
            ...(files.length > 0
              ? [
                  `        ${files.join(' | ')}) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;`,
                ]
              : []),
            ...(others.length > 0 ? [`        ${others.join(' | ')}) return ;;`] : []),
            '      esac',
          ]
        : []),
      `      words='${[...flags.flatMap((flag) => flag.names.map(word)), '--help'].join(' ')}' ;;`,
    ];
  });
  const top = [
    ...subcommands.map(({ name }) => word(name)),
    'help',
    ...program.flags.flatMap(({ names }) => names.map(word)),
    '--help',
  ];
  return `# bash completion of stevedore
_stevedore() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} words=''
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W '${top.join(' ')}' -- "$current")
    return
  fi
  case \${COMP_WORDS[1]} in
${cases.flat().join('\n')}
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _stevedore stevedore
`;
}
