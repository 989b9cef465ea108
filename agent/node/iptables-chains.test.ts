// What is made for others, by the commands that are run, and that it is made again.
import { describe, expect, it } from 'vitest';
import { ExecError, type exec } from '../../lib/exec.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createIptablesChains, removeIptablesMarks } from './iptables-chains.ts';

/** Tables in memory: rules by `tool table chain`. */
function setUp(missing: readonly string[] = []) {
  const chains = new Map<string, string[]>([
    ['iptables filter INPUT', ['-j OTHERS']],
    ['iptables filter OUTPUT', []],
  ]);
  const broken = { failures: 0 };
  const run: typeof exec = (command, args, options) => {
    if (missing.some((name) => command.startsWith(name)))
      return Promise.reject(new ExecError(command, 'not-found', 'no such program'));
    const failed = (exitCode: number) =>
      Promise.reject(new ExecError(command, 'failed', `exit ${exitCode}`, { exitCode }));
    if (broken.failures > 0) {
      broken.failures--;
      return failed(4);
    }
    const said = (stdout: string) => Promise.resolve({ stdout, stderr: '' });
    const [, , , table, verb, chain = ''] = args;
    const id = `${command} ${table} ${chain}`;
    if (verb === '-S') {
      const rules = chains.get(id);
      return rules ? said([`-N ${chain}`, ...rules.map((rule) => `-A ${chain} ${rule}`), ''].join('\n')) : failed(1);
    }
    if (verb === '-X') return chains.delete(id) ? said('') : failed(1);
    const tool = command.replace('-restore', '');
    let now = '';
    for (const line of String(options?.input).split('\n')) {
      const [word = '', name = '', ...rest] = line.split(' ');
      if (line.startsWith('*')) now = line.slice(1);
      else if (line.startsWith(':')) chains.set(`${tool} ${now} ${word.slice(1)}`, []);
      else if (word === '-A') chains.get(`${tool} ${now} ${name}`)!.push(rest.join(' '));
      else if (word === '-I') chains.get(`${tool} ${now} ${name}`)!.unshift(rest.join(' '));
    }
    return said('');
  };
  const clock = createFakeClock();
  const stop = new AbortController();
  const start = () => {
    const done = createIptablesChains({ exec: run, clock, log: silentLog }).run(stop.signal);
    return async () => {
      stop.abort();
      await done;
    };
  };
  return { chains, broken, run, clock, start };
}

const rule =
  '! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP';
const wanted = {
  'iptables mangle KUBE-IPTABLES-HINT': [],
  'iptables mangle KUBE-KUBELET-CANARY': [],
  'iptables nat KUBE-KUBELET-CANARY': [],
  'iptables filter KUBE-KUBELET-CANARY': [],
  'iptables filter KUBE-FIREWALL': [rule],
  'iptables filter INPUT': ['-j KUBE-FIREWALL', '-j OTHERS'],
  'iptables filter OUTPUT': ['-j KUBE-FIREWALL'],
  'ip6tables mangle KUBE-IPTABLES-HINT': [],
  'ip6tables mangle KUBE-KUBELET-CANARY': [],
  'ip6tables nat KUBE-KUBELET-CANARY': [],
  'ip6tables filter KUBE-KUBELET-CANARY': [],
};

describe('the chains made for others', () => {
  it('are made once, beside what others have there', async () => {
    const t = setUp();
    t.chains.set('iptables filter KUBE-FIREWALL', ['-m mark --mark 0x8000/0x8000 -j DROP']);
    const end = t.start();
    await t.clock.advance(120_500);
    expect(Object.fromEntries(t.chains)).toEqual({
      ...wanted,
      'iptables filter KUBE-FIREWALL': ['-m mark --mark 0x8000/0x8000 -j DROP', rule],
    });
    await end();
  });

  it('are made again where they were flushed', async () => {
    const t = setUp();
    const end = t.start();
    await t.clock.advance(1_000);
    expect(Object.fromEntries(t.chains)).toEqual(wanted);
    for (const id of [...t.chains.keys()]) if (id.includes('KUBE')) t.chains.delete(id);
    t.chains.set('iptables filter INPUT', ['-j OTHERS']);
    t.chains.set('iptables filter OUTPUT', []);
    await t.clock.advance(62_000);
    expect(Object.fromEntries(t.chains)).toEqual(wanted);
    await end();
  });

  it('wait for a lock that another holds', async () => {
    const t = setUp();
    t.broken.failures = 2;
    const end = t.start();
    await t.clock.advance(61_000);
    expect(Object.fromEntries(t.chains)).toEqual(wanted);
    await end();
  });

  it('are no matter where there is no iptables', async () => {
    const t = setUp(['iptables', 'ip6tables']);
    const end = t.start();
    await t.clock.advance(200_000);
    expect(t.chains.size).toBe(2);
    await end();
  });

  it('leave no mark when the node leaves', async () => {
    const t = setUp();
    const end = t.start();
    await t.clock.advance(1_000);
    await end();
    await removeIptablesMarks(t.run, new AbortController().signal);
    expect([...t.chains.keys()].filter((id) => /HINT|CANARY/.test(id))).toEqual([]);
  });
});
