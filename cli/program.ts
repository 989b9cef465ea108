// The `stevedore` command with all its subcommands: what the program runs, and what its man page and completion are made from.
import { Command } from 'commander';
import { registerCheck } from './check.ts';
import { registerCleanup } from './cleanup.ts';
import { registerDev } from './dev.ts';
import { registerJoin } from './join.ts';
import { registerLeave } from './leave.ts';
import { registerRules } from './rules.ts';
import { registerRun } from './run.ts';
import { registerStatus } from './status.ts';
import { version } from './version.ts';

export function createProgram(): Command {
  const program = new Command('stevedore')
    .description('the node half of Kubernetes: kubelet and kube-proxy as one daemon')
    .version(version);
  registerRun(program);
  registerStatus(program);
  registerDev(program);
  registerJoin(program);
  registerCheck(program);
  registerLeave(program);
  registerRules(program);
  registerCleanup(program);
  return program;
}
