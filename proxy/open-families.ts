// Opens the backends of both IP families, as far as this host has tools for them.
import { readFile } from 'node:fs/promises';
import type { RulesBackend } from './backend.ts';
import { type BackendContext, type BackendKind, openBackend } from './backends.ts';
import { ipFamilies, type IpFamily } from './addresses.ts';
import { describeError } from '../lib/log.ts';

const toolsEveryMs = 5_000;

async function ipv6IsOn(): Promise<boolean> {
  const text = async (path: string): Promise<string | undefined> => readFile(path, 'utf8').catch(() => undefined);
  if ((await text('/proc/net/if_inet6')) === undefined) return false;
  return (await text('/proc/sys/net/ipv6/conf/all/disable_ipv6'))?.trim() !== '1';
}

export interface OpenFamiliesDeps {
  readonly context: BackendContext;
  mode(): Promise<BackendKind>;
  /** This family is open already. */
  has(family: IpFamily): boolean;
  add(backend: RulesBackend): void;
  onTrouble(trouble: string | undefined): void;
}

async function openFamilies({ context, mode, has, add }: OpenFamiliesDeps): Promise<void> {
  const kind = await mode();
  for (const family of ipFamilies) {
    if (has(family)) continue;
    if (family === 'IPv6' && !(await ipv6IsOn())) continue;
    try {
      add(await openBackend(kind, family, context));
    } catch (error) {
      if (family === 'IPv4') throw error;
      context.log.info('IPv6 is not served: this host has no tool for it', { error });
    }
  }
}

/** Resolves once the families are open. Without tools nothing is served: said once, and looked for again. */
export async function openWhenPossible(deps: OpenFamiliesDeps, signal: AbortSignal): Promise<void> {
  const { context, mode, onTrouble } = deps;
  for (let said = false; ; said = true)
    try {
      await openFamilies(deps);
      onTrouble(undefined);
      return;
    } catch (error) {
      onTrouble(`no rules can be written: ${describeError(error)}`);
      if (!said) {
        const kind = await mode();
        context.log.error(
          'no Service is served: the tools to write rules cannot be used; they are looked for every few seconds',
          {
            mode: kind,
            error,
            mend: `install ${kind === 'nftables' ? 'nftables' : 'iptables'}, or set mode in KubeProxyConfiguration`,
          },
        );
      }
      await context.clock.sleep(toolsEveryMs, signal);
    }
}
