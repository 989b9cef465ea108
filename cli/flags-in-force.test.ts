import { Command } from 'commander';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadConfiguration } from './config/load.ts';
import { flagsInForce } from './flags-in-force.ts';
import { registerRun } from './run.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-flags-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it('every flag of the command is told, and no other', async () => {
  const program = new Command();
  registerRun(program);
  const names = program.commands[0]!.options.map((option) => option.long!.slice(2)).sort();
  const configuration = await loadConfiguration({ files: [], dropInFolder: undefined, flags: [] });
  expect(Object.keys(flagsInForce(configuration, {})).sort()).toEqual(names);
});

it('they are what the documents say, and the command line over them', async () => {
  const file = join(folder, 'c.yaml');
  await writeFile(
    file,
    [
      'apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nregisterWithTaints: [{ key: a, value: b, effect: NoSchedule }, { key: c, effect: NoExecute }]',
      'apiVersion: stevedore/v1alpha1\nkind: StevedoreConfiguration\nkubeconfig: /k\nrootDir: /from-file\nnodeLabels: { z: "1", b: "2" }',
    ].join('\n---\n'),
  );
  const configuration = await loadConfiguration({
    files: [file],
    dropInFolder: undefined,
    flags: [{ flag: '--root-dir', kind: 'StevedoreConfiguration', path: ['rootDir'], value: '/from-flag' }],
  });
  expect(flagsInForce(configuration, { config: [file], only: 'agent' })).toMatchObject({
    config: file,
    kubeconfig: '/k',
    only: 'agent',
    'root-dir': '/from-flag',
    'node-labels': 'b=2,z=1',
    'register-with-taints': 'a=b:NoSchedule,c:NoExecute',
    'container-runtime-endpoint': 'unix:///run/containerd/containerd.sock',
    'dry-run': 'false',
  });
});
