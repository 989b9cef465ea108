// The commands of the program as plain data, from which its man page and its completion are written.
import type { Command } from 'commander';

export interface Flag {
  /** As one types it: `--token`, `-f`. */
  readonly names: readonly string[];
  /** `<token>`, `<file...>`; empty where the flag takes no value. */
  readonly value: string;
  readonly description: string;
  /** Empty: none. */
  readonly fallback: string;
}

export interface CommandEntry {
  readonly name: string;
  readonly description: string;
  /** `[api-server-endpoint]`. */
  readonly args: readonly { readonly text: string; readonly description: string }[];
  readonly flags: readonly Flag[];
}

const argumentText = (argument: Command['registeredArguments'][number]): string => {
  const name = `${argument.name()}${argument.variadic ? '...' : ''}`;
  return argument.required ? `<${name}>` : `[${name}]`;
};

function entryOf(command: Command): CommandEntry {
  return {
    name: command.name(),
    description: command.description(),
    args: command.registeredArguments.map((argument) => ({
      text: argumentText(argument),
      description: argument.description,
    })),
    flags: command.options.map(({ short, long, flags, description, defaultValue }) => ({
      names: [short, long].filter((name) => name !== undefined && name !== null),
      value: /[<[].*$/.exec(flags)?.[0] ?? '',
      description,
      fallback: typeof defaultValue === 'string' ? defaultValue : '',
    })),
  };
}

/** The program itself comes first. */
export const commandTree = (program: Command): CommandEntry[] => [entryOf(program), ...program.commands.map(entryOf)];
