// Writes Prometheus' text format for figures that are read when they are asked for and belong to things that come and go: no registry would
// forget them in time.

export type MetricType = 'counter' | 'gauge' | 'untyped';

export interface Family {
  /**
   * `timeMs` is shown with the sample where it is given, as timeText makes it where many samples share it. A value that is no finite number is
   * left out.
   */
  sample(labels: string, value: number | undefined, timeMs?: number | string): void;
}

export interface Exposition {
  /** All samples of a family must follow its beginning: the format allows no others between. */
  family(name: string, type: MetricType, help: string): Family;
  /** What was written since the last call. */
  text(): string;
}

export const timeText = (timeMs: number): string => String(Math.trunc(timeMs));

const escapeValue = (value: string): string =>
  /[\\\n"]/.test(value) ? value.replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/"/g, '\\"') : value;

/** `{a="b",c="d"}`, or nothing. Names must be valid already. */
export function labelText(labels: Readonly<Record<string, string>>): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escapeValue(value)}"`);
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}

/** One label more in a text that labelText made. */
export const withLabel = (text: string, name: string, value: string): string =>
  text === '' ? labelText({ [name]: value }) : `${text.slice(0, -1)},${name}="${escapeValue(value)}"}`;

export function createExposition(): Exposition {
  const parts: string[] = [];
  return {
    family(name, type, help) {
      const head = `# HELP ${name} ${help.replace(/\\/g, '\\\\').replace(/\n/g, '\\n')}\n# TYPE ${name} ${type}\n`;
      let begun = false;
      return {
        sample(labels, value, timeMs) {
          if (value === undefined || !Number.isFinite(value)) return;
          if (!begun) parts.push(head);
          begun = true;
          const time = typeof timeMs === 'number' ? timeText(timeMs) : timeMs;
          parts.push(time === undefined ? `${name}${labels} ${value}\n` : `${name}${labels} ${value} ${time}\n`);
        },
      };
    },
    text: () => parts.splice(0).join(''),
  };
}
