// The daemon's log: one JSON object a line on stderr (pino), or short text for people at a terminal.
import { type Logger, pino } from 'pino';

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error';
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  /** Something needs an operator's eye sooner or later; say what was attempted, on what, what came back, what happens next. */
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A log whose every line carries these fields. */
  with(fields: LogFields): Log;
}

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: 'json' | 'text';
  /** Default: standard error. */
  write?(line: string): void;
}

// Errors carry a message and often a cause; a log line shows the chain, not the stack.
function flatten(fields: LogFields | undefined): Record<string, unknown> {
  if (!fields) return {};
  const flat: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields)) flat[key] = value instanceof Error ? describeError(value) : value;
  return flat;
}

/** An error's message followed by those of its causes, each once; a cause that only sets a prefix before what was said says nothing more. */
export function describeError(error: unknown): string {
  const parts: string[] = [];
  for (let next: unknown = error; next !== undefined && next !== null && parts.length < 8; ) {
    const text = next instanceof Error ? messageOf(next) : String(next);
    const told = text.slice(text.indexOf(': ') < 0 ? 0 : text.indexOf(': ') + 2);
    if (!parts.some((part) => part.includes(told))) parts.push(text);
    next = next instanceof Error ? next.cause : undefined;
  }
  return parts.join(': ');
}

// Connecting to a name with several addresses fails with an AggregateError that says nothing itself.
const messageOf = (error: Error): string =>
  error.message || (error instanceof AggregateError && error.errors.map(describeError).join(', ')) || error.name;

function textLine(level: string, message: string, fields: Record<string, unknown>): string {
  const rest = Object.entries(fields)
    .map(([key, value]) => `${key}=${typeof value === 'string' ? JSON.stringify(value) : JSON.stringify(value)}`)
    .join(' ');
  return `${new Date().toISOString()} ${level.toUpperCase().padEnd(5)} ${message}${rest ? `  ${rest}` : ''}\n`;
}

const order: readonly LogLevel[] = ['trace', 'debug', 'info', 'warn', 'error'];

export function createLog(options: LogOptions): Log {
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const logger =
    options.format === 'json'
      ? pino(
          {
            level: options.level,
            base: null,
            timestamp: pino.stdTimeFunctions.isoTime,
            formatters: { level: (label) => ({ level: label }) },
          },
          { write },
        )
      : undefined;
  return boundLog(options, write, logger, {});
}

function boundLog(
  options: LogOptions,
  write: (line: string) => void,
  logger: Logger | undefined,
  bound: Record<string, unknown>,
): Log {
  const at = (level: LogLevel) => (message: string, fields?: LogFields) => {
    if (order.indexOf(level) < order.indexOf(options.level)) return;
    const all = { ...bound, ...flatten(fields) };
    if (logger) logger[level](all, message);
    else write(textLine(level, message, all));
  };
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    with: (fields) => boundLog(options, write, logger, { ...bound, ...flatten(fields) }),
  };
}

/** Says nothing; for tests. */
export const silentLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  with: () => silentLog,
};
