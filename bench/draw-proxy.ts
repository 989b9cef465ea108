// Draws the curves of bench/proxy.ts: `node bench/draw-proxy.ts RESULTS > docs/proxy-curves.svg`, RESULTS a file with what it printed, a line a point.
import { readFileSync } from 'node:fs';

interface Point {
  readonly mode: string;
  readonly services: number;
  readonly unfinished?: string;
  readonly [measure: string]: unknown;
}

interface Curve {
  readonly name: string;
  readonly colour: string;
  readonly dashed?: boolean;
  readonly mode: string;
  readonly measure: string;
}

const [width, height, left, top, right, bottom] = [460, 300, 56, 40, 12, 44];
const ours = { nftables: '#0a5c9e', iptables: '#b3541e' };
const raw = { nftables: '#7fb2db', iptables: '#e0a988' };

const points = readFileSync(process.argv[2] ?? '/dev/stdin', 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('{'))
  .map((line) => JSON.parse(line) as Point);
const services = [...new Set(points.map((point) => point.services))].sort((a, b) => a - b);

function panel(title: string, unit: string, curves: readonly Curve[], offset: number): string {
  const drawn = curves.map((curve) => ({
    ...curve,
    values: points
      .filter(({ mode, unfinished }) => mode === curve.mode && unfinished === undefined)
      .map((point) => [point.services, Number(point[curve.measure])] as const)
      .filter(([, value]) => value > 0)
      .sort(([a], [b]) => a - b),
  }));
  const all = drawn.flatMap(({ values }) => values.map(([, value]) => value));
  const [low, high] = [10 ** Math.floor(Math.log10(Math.min(...all))), 10 ** Math.ceil(Math.log10(Math.max(...all)))];
  const across = Math.log(services.at(-1)! / services[0]!);
  const x = (count: number): number =>
    Math.round(offset + left + (Math.log(count / services[0]!) / across) * (width - left - right));
  const y = (value: number): number =>
    Math.round(top + (1 - Math.log(value / low) / Math.log(high / low)) * (height - top - bottom));
  const out = [`<text x="${offset + left}" y="20" font-weight="bold">${title}</text>`];
  for (let value = low; value <= high; value *= 10)
    out.push(
      `<line x1="${offset + left}" x2="${offset + width - right}" y1="${y(value)}" y2="${y(value)}" stroke="#ddd"/>`,
      `<text x="${offset + left - 6}" y="${y(value) + 4}" text-anchor="end">${value.toLocaleString('en')}</text>`,
    );
  out.push(`<text x="${offset + 4}" y="${top - 6}">${unit}</text>`);
  for (const count of services)
    out.push(
      `<text x="${x(count)}" y="${height - bottom + 16}" text-anchor="middle">${count >= 1000 ? `${count / 1000}k` : count}</text>`,
    );
  out.push(
    `<text x="${offset + (left + width) / 2}" y="${height - 8}" text-anchor="middle">Services, 10 endpoints each</text>`,
  );
  for (const { name, colour, dashed, values } of drawn) {
    const last = values.at(-1);
    if (!last) continue;
    const path = values.map(([count, value]) => `${x(count)},${y(value)}`).join(' ');
    out.push(
      `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"${dashed ? ' stroke-dasharray="5 4"' : ''}/>`,
      ...values.map(([count, value]) => `<circle cx="${x(count)}" cy="${y(value)}" r="3" fill="${colour}"/>`),
      `<text x="${Math.min(x(last[0]) + 6, offset + width - 96)}" y="${y(last[1]) - 7}" fill="${colour}">${name}</text>`,
    );
  }
  return out.join('\n');
}

const pair = (what: string, floor: string): Curve[] =>
  (['nftables', 'iptables'] as const).flatMap((mode) => [
    { name: mode, colour: ours[mode], mode, measure: what },
    { name: `raw ${mode}`, colour: raw[mode], dashed: true, mode, measure: floor },
  ]);

console.log(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width * 3} ${height}" font-family="sans-serif" font-size="12">
<title>Curves of the proxy benchmarks by number of Services</title>
<rect width="100%" height="100%" fill="white"/>
${panel('One endpoint change → kernel, p50', 'ms', pair('changeP50Ms', 'rawPartialP50Ms'), 0)}
${panel('Cold start, computing', 'ms of CPU', pair('coldCpuMs', 'rawLoadCpuMs'), width)}
${panel('Restart after a crash, computing', 'ms of CPU', pair('crashRestartCpuMs', 'rawListCpuMs'), width * 2)}
</svg>`);
