// Finds, in what a full apply takes away, addresses and ports of Services. Pure.
import type { Front } from '../backend.ts';
import type { Protocol } from '../model.ts';
import type { ElementMap } from './element-map.ts';
import { keyOf, mapOf } from './names.ts';
import type { ElementChange } from './script.ts';

const dispatching = new Set(['svc', 'svc-node', 'guard', 'guard-node']);

/** UDP and SCTP only. A front is in several maps: it may still be in others. */
export function goneFronts(changes: ElementMap<ElementChange>): Front[] {
  const gone = new Map<string, Front>();
  for (const [id, { before, after }] of changes) {
    if (before === undefined || after !== undefined) continue;
    const map = mapOf(id);
    if (!dispatching.has(map)) continue;
    const words = keyOf(id).split(' . ');
    const [ip, protocol, port] = map.endsWith('-node') ? [undefined, ...words] : words;
    if (protocol === 'tcp') continue;
    gone.set(`${ip ?? '*'} ${protocol} ${port}`, {
      protocol: protocol!.toUpperCase() as Protocol,
      ip,
      port: Number(port),
    });
  }
  return [...gone.values()];
}
