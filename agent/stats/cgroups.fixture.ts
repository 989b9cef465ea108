// Trees of cgroups of either version, a pod in them, and what is asked of a page of metrics.
import type { Pod } from '../../kube/types/pod.ts';

/** Files of one cgroup; `path` without a slash at its beginning. */
export const v2 = (path: string, usageUs = 5_000_000): Record<string, string> => ({
  'cgroup.controllers': 'cpu memory pids io\n',
  [`${path}/cpu.stat`]: `usage_usec ${usageUs}\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 10\nnr_throttled 2\nthrottled_usec 700\n`,
  [`${path}/cpu.max`]: '50000 100000\n',
  [`${path}/cpu.weight`]: '39\n',
  [`${path}/cpu.pressure`]:
    'some avg10=1.50 avg60=0.20 avg300=0.10 total=1234567\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n',
  [`${path}/memory.current`]: '10485760\n',
  [`${path}/memory.max`]: '20971520\n',
  [`${path}/memory.min`]: '4096\n',
  [`${path}/memory.peak`]: '11534336\n',
  [`${path}/memory.swap.current`]: '4096\n',
  [`${path}/memory.swap.max`]: 'max\n',
  [`${path}/memory.stat`]:
    'anon 4194304\nfile 6291456\nkernel 512\nfile_mapped 1024\ninactive_file 2097152\nactive_file 1048576\npgfault 99\npgmajfault 3\n',
  [`${path}/memory.events`]: 'low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\n',
  [`${path}/pids.current`]: '4\n',
  [`${path}/pids.max`]: 'max\n',
  [`${path}/io.stat`]: '8:0 rbytes=100 wbytes=200 rios=3 wios=4 dbytes=0 dios=0\n',
  [`${path}/cgroup.procs`]: '4242\n4243\n',
});

export const v1 = (path: string): Record<string, string> => ({
  [`cpuacct/${path}/cpuacct.usage`]: '5000000000\n',
  [`cpuacct/${path}/cpuacct.stat`]: 'user 300\nsystem 200\n',
  [`cpu/${path}/cpu.stat`]: 'nr_periods 10\nnr_throttled 2\nthrottled_time 700000\n',
  [`cpu/${path}/cpu.cfs_quota_us`]: '-1\n',
  [`cpu/${path}/cpu.cfs_period_us`]: '100000\n',
  [`cpu/${path}/cpu.shares`]: '1024\n',
  [`memory/${path}/memory.usage_in_bytes`]: '10485760\n',
  [`memory/${path}/memory.limit_in_bytes`]: '9223372036854771712\n',
  [`memory/${path}/memory.stat`]:
    'cache 1\ntotal_cache 6291456\ntotal_rss 4194304\ntotal_inactive_file 2097152\ntotal_pgfault 99\ntotal_pgmajfault 3\ntotal_swap 4096\n',
  [`memory/${path}/memory.oom_control`]: 'oom_kill_disable 0\nunder_oom 0\noom_kill 1\n',
  [`memory/${path}/cgroup.procs`]: '4242\n',
  [`pids/${path}/pids.current`]: '4\n',
  [`pids/${path}/pids.max`]: '100\n',
  [`blkio/${path}/blkio.throttle.io_service_bytes`]: '8:0 Read 100\n8:0 Write 200\n8:0 Total 300\nTotal 300\n',
  [`blkio/${path}/blkio.throttle.io_serviced`]: '8:0 Read 3\n8:0 Write 4\nTotal 7\n',
});

export const pod: Pod = {
  metadata: { name: 'web', namespace: 'default', uid: 'u1' },
  spec: { containers: [{ name: 'app', image: 'img' }] },
  status: {
    phase: 'Running',
    startTime: '2026-01-01T00:00:00Z',
    containerStatuses: [
      {
        name: 'app',
        image: 'img',
        imageID: 'img',
        ready: true,
        restartCount: 0,
        state: { running: { startedAt: '2026-01-01T00:00:01Z' } },
      },
    ],
  },
};

/** What promtool looks at: each family once, its TYPE before its samples, none between, no sample twice. Undefined: all is well. */
export function firstMistake(page: string): string | undefined {
  const done = new Set<string>();
  const seen = new Set<string>();
  let current = '';
  for (const line of page.split('\n').filter((text) => text !== '')) {
    if (line.startsWith('# HELP ')) continue;
    const type = /^# TYPE (\w+) (counter|gauge|histogram|untyped)$/.exec(line);
    if (type) {
      if (done.has(type[1]!)) return `${type[1]} begins twice`;
      current = type[1]!;
      done.add(current);
      continue;
    }
    const sample = /^([a-zA-Z_:][\w:]*)(\{(?:\w+="(?:[^"\\\n]|\\.)*",?)*\})? (-?[\d.e+]+|NaN|[+-]Inf)( \d+)?$/.exec(
      line,
    );
    if (!sample) return `no sample: ${line}`;
    if (sample[1]!.replace(/_(bucket|sum|count)$/, '') !== current && sample[1] !== current)
      return `of another family than ${current}: ${line}`;
    const key = `${sample[1]}${sample[2] ?? ''}`;
    if (seen.has(key)) return `${key} comes twice`;
    seen.add(key);
  }
  return undefined;
}
