// Runs the steps of the story one after the other and keeps what came of each.
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describeError } from '../../lib/log.ts';

export interface StepResult {
  readonly name: string;
  readonly ok: boolean;
  readonly seconds: number;
  /** What was seen, or what went wrong. */
  readonly detail: string;
}

export interface Report {
  /** Runs a step; what it returns is noted. One that throws is noted as failed, and the story goes on unless the step is `vital`. */
  step(name: string, work: () => Promise<string>, options?: { vital?: boolean }): Promise<void>;
  readonly results: readonly StepResult[];
}

export interface ReportOptions {
  say(text: string): void;
  /** Called for a step that failed; what it returns is said. */
  explain(): Promise<string>;
}

export function createReport(options: ReportOptions): Report {
  const results: StepResult[] = [];
  return {
    results,
    async step(name, work, { vital = false } = {}) {
      const startedMs = performance.now();
      let ok = true;
      let detail: string;
      let failure: unknown;
      try {
        detail = await work();
      } catch (error) {
        ok = false;
        failure = error;
        detail = describeError(error);
      }
      const seconds = Math.round((performance.now() - startedMs) / 100) / 10;
      results.push({ name, ok, seconds, detail });
      options.say(`${ok ? 'ok    ' : 'FAILED'} ${name} (${seconds} s): ${detail}\n`);
      if (ok) return;
      options.say(`${await options.explain().catch((error: unknown) => describeError(error))}\n`);
      if (vital) throw failure;
    },
  };
}

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ').slice(0, 300);

/** A table for docs/conformance.md. */
export const reportTable = (results: readonly StepResult[]): string =>
  [
    '| step | result | s | seen |',
    '|---|---|---|---|',
    ...results.map(
      ({ name, ok, seconds, detail }) =>
        `| ${cell(name)} | ${ok ? 'pass' : '**fail**'} | ${seconds} | ${cell(detail)} |`,
    ),
    '',
  ].join('\n');

/** Puts the paragraphs into docs/conformance.md, instead of what an earlier run of the same command wrote there; `of` is the command after `npm run`. */
export async function writeSection(of: string, paragraphs: readonly string[]): Promise<void> {
  const marks = [
    `<!-- written by npm run ${of} --write -->`,
    `<!-- end of ${of.replace(' -- ', ' ').trim()} -->`,
  ] as const;
  const page = fileURLToPath(new URL('../../docs/conformance.md', import.meta.url));
  const [before, rest] = (await readFile(page, 'utf8')).split(marks[0]);
  const after = rest?.split(marks[1])[1] ?? '\n';
  await writeFile(page, `${(before ?? '').trimEnd()}\n\n${[marks[0], ...paragraphs, marks[1]].join('\n\n')}${after}`);
}

/** Throws what is wrong, in words. */
export function expect(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Error(otherwise);
}
