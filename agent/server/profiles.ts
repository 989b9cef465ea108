// /debug/pprof/: what this process spends its time and memory on, in V8's formats (Chrome's DevTools open them), and /debug/flags/v. One
// profile at a time; a heap snapshot stops the world, so it is for those who may reach nodes/proxy only.
import { Session } from 'node:inspector/promises';
import { getHeapSnapshot } from 'node:v8';
import { pipeline } from 'node:stream/promises';
import type { Clock } from '../../lib/clock.ts';
import { HttpError, type PageCall, type Route, sendJson, sendText } from './routes.ts';

export interface ProfilesOptions {
  /** `enableProfilingHandler`. */
  readonly enabled: boolean;
}

const index = `/debug/pprof/

profile?seconds=N   CPU profile (.cpuprofile), 30 s by default, 300 s at most
heap                sampled allocations of N seconds (.heapprofile): heap?seconds=N
snapshot            whole heap (.heapsnapshot); the process stands still meanwhile
cmdline             the command line
goroutine           what keeps the event loop alive
`;

export function profileRoutes(clock: Clock, options: ProfilesOptions): Route[] {
  let busy = false;

  const seconds = (call: PageCall, byDefault: number): number => {
    const text = call.at.query.get('seconds') ?? String(byDefault);
    const value = Number(text);
    if (!/^\d{1,3}$/.test(text) || value < 1 || value > 300)
      throw new HttpError(400, 'seconds: a number from 1 to 300\n');
    return value;
  };

  const alone = async (work: () => Promise<void>): Promise<void> => {
    if (busy) throw new HttpError(429, 'another profile is being taken\n', { 'retry-after': '30' });
    busy = true;
    try {
      await work();
    } finally {
      busy = false;
    }
  };

  const withSession = async <T>(work: (session: Session) => Promise<T>): Promise<T> => {
    const session = new Session();
    session.connect();
    try {
      return await work(session);
    } finally {
      session.disconnect();
    }
  };

  const profile = async (call: PageCall): Promise<void> =>
    await alone(async () => {
      const length = seconds(call, 30);
      const taken = await withSession(async (session) => {
        await session.post('Profiler.enable');
        await session.post('Profiler.start');
        await clock.sleep(length * 1000, call.signal);
        return (await session.post('Profiler.stop')).profile;
      });
      call.response.setHeader('content-disposition', 'attachment; filename="profile.cpuprofile"');
      sendJson(call.response, taken);
    });

  const heap = async (call: PageCall): Promise<void> =>
    await alone(async () => {
      const length = seconds(call, 5);
      const taken = await withSession(async (session) => {
        await session.post('HeapProfiler.startSampling', { samplingInterval: 16_384 });
        await clock.sleep(length * 1000, call.signal);
        return (await session.post('HeapProfiler.stopSampling')).profile;
      });
      call.response.setHeader('content-disposition', 'attachment; filename="heap.heapprofile"');
      sendJson(call.response, taken);
    });

  const snapshot = async (call: PageCall): Promise<void> =>
    await alone(async () => {
      call.response.writeHead(200, {
        'content-type': 'application/json',
        'content-disposition': 'attachment; filename="heap.heapsnapshot"',
      });
      await pipeline(getHeapSnapshot(), call.response, { signal: call.signal });
    });

  const serve = async (call: PageCall): Promise<void> => {
    if (!options.enabled) throw new HttpError(405, 'profiling endpoint is disabled.\n');
    const { response } = call;
    switch (call.params.name) {
      case 'profile':
        return await profile(call);
      case 'heap':
      case 'allocs':
        return await heap(call);
      case 'snapshot':
        return await snapshot(call);
      case 'cmdline':
        return sendText(response, 200, process.argv.join('\0'));
      case 'goroutine':
        return sendText(response, 200, `${process.getActiveResourcesInfo().sort().join('\n')}\n`);
      case '':
        return sendText(response, 200, index);
      default:
        throw new HttpError(404, 'Unknown profile\n');
    }
  };

  return [{ kind: 'page', methods: ['GET'], pattern: '/debug/pprof/{name*}', serve }];
}
